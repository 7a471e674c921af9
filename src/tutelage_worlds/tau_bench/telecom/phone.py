"""The customer's phone in tau2-bench's telecom domain: its state, and what the customer does on it.

A search for a network sets connection, technology and signal from the SIM card, the preferred mode,
flight mode, the APN and the line. As in tau2-bench it happens only where an action begins one: a
line that was resumed has no service until then.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from tutelage.errors import EnvError
from tutelage_worlds.tau_bench.database import Record, canonical, copied
from tutelage_worlds.tau_bench.telecom.records import (
    Field,
    flag,
    maybe,
    number,
    one_of,
    record,
    shaped,
    text,
    whole,
)
from tutelage_worlds.tau_bench.tools import Kit

MODES: Final = ("4g_5g_preferred", "4g_only", "3g_only", "2g_only")
LEVELS: Final = ("none", "poor", "fair", "good", "excellent")
TECHNOLOGIES: Final = ("none", "2G", "3G", "4G", "5G")
PERMISSIONS: Final = ("sms", "storage", "phone", "network")
LOCKS: Final = {"pin": "locked_pin", "puk": "locked_puk"}
CONNECTED, SEARCHING, NO_SERVICE = "connected", "searching", "no_service"
STATUSES: Final = (CONNECTED, SEARCHING, NO_SERVICE, "emergency_only")

_APN: Final = {
    "apn_name": Field(one_of("internet", "broken"), "internet"),
    "reset_at_reboot": Field(flag, False),
    "mms_apn": Field(maybe(text), "mms"),
    "mmsc_url": Field(maybe(text), "http://mmsc.example.org"),
    "mms_proxy": Field(maybe(text), None),
    "mms_port": Field(maybe(whole), None),
}
_VPN: Final = {
    "server_address": Field(maybe(text), None),
    "protocol": Field(maybe(text), None),
    "server_performance": Field(one_of("unknown", *LEVELS[1:]), "unknown"),
}
_APP: Final = {
    "app_name": Field(text),
    "permissions": Field(
        record({name: Field(flag, False) for name in PERMISSIONS}),
        dict.fromkeys(PERMISSIONS, False),
    ),
}
_PAYMENT: Final = {"bill_id": Field(text), "amount_due": Field(number), "paid": Field(flag, False)}


def _apps(value: Any) -> Record:
    return {text(name): shaped(app, _APP) for name, app in value.items()}


def _signals(value: Any) -> Record:
    read = {one_of(*TECHNOLOGIES)(name): one_of(*LEVELS)(level) for name, level in value.items()}
    return dict(read)


_DEVICE: Final = {
    "sim_card_status": Field(one_of("active", "missing", *LOCKS.values()), "active"),
    "sim_card_missing": Field(flag, False),
    "airplane_mode": Field(flag, False),
    "network_signal_strength": Field(one_of(*LEVELS), "good"),
    "network_technology_connected": Field(one_of(*TECHNOLOGIES), "5G"),
    "network_connection_status": Field(one_of(*STATUSES), CONNECTED),
    "battery_level": Field(whole, 80),
    "data_enabled": Field(flag, True),
    "roaming_enabled": Field(flag, False),
    "network_mode_preference": Field(one_of(*MODES), MODES[0]),
    "active_apn_settings": Field(record(_APN), shaped({}, _APN)),
    "wifi_enabled": Field(flag, False),
    "wifi_connected": Field(flag, False),
    "wifi_ssid": Field(maybe(text), None),
    "wifi_signal_strength": Field(one_of(*LEVELS), "none"),
    "wifi_calling_enabled": Field(flag, False),
    "wifi_calling_mms_over_wifi": Field(flag, False),
    "data_saver_mode": Field(flag, False),
    "vpn_enabled_setting": Field(flag, False),
    "vpn_connected": Field(flag, False),
    "vpn_details": Field(maybe(record(_VPN)), None),
    "app_statuses": Field(
        _apps,
        {
            "messaging": {
                "app_name": "messaging",
                "permissions": {"sms": True, "storage": True, "phone": True, "network": False},
            },
            "browser": {
                "app_name": "browser",
                "permissions": {"sms": False, "storage": True, "phone": False, "network": True},
            },
        },
    ),
}
_AROUND: Final = {
    "name": Field(maybe(text), None),
    "phone_number": Field(maybe(text), None),
    "is_abroad": Field(flag, False),
    "roaming_allowed": Field(flag, False),
    "signal_strength": Field(_signals, dict(zip(TECHNOLOGIES[1:], LEVELS[1:], strict=True))),
    "mobile_data_usage_exceeded": Field(flag, False),
    "line_active": Field(flag, True),
    "payment_request": Field(maybe(record(_PAYMENT)), None),
}
_STATE: Final = {
    "device": Field(record(_DEVICE), shaped({}, _DEVICE)),
    "surroundings": Field(record(_AROUND), shaped({}, _AROUND)),
}


def first_state(raw: Any, where: str) -> Record:
    """The state of every phone before its task begins, from tau2-bench's user_db.

    Raises EnvError, naming the field, for what does not fit.
    """
    try:
        return shaped(raw, _STATE)
    except (AttributeError, ValueError) as error:
        raise EnvError(f"{where}: {error}; get the file again") from error


class Phone:
    """`device` is the phone, `around` where its owner is and what the company lets it do."""

    def __init__(self, first: Record) -> None:
        state = copied(first)
        self.device: Record = state["device"]
        self.around: Record = state["surroundings"]
        self._apn = copied(first["device"]["active_apn_settings"])
        # one VPN for the whole episode: once it is slow it stays so when it is connected again
        self._vpn = {
            "server_address": "192.168.1.1",
            "protocol": "OpenVPN",
            "server_performance": "excellent",
        }

    def mark(self) -> str:
        """Equal for phones that behave alike."""
        return canonical([self.device, self.around, self._vpn])

    # -- what it is like

    def sim(self) -> str:
        return "missing" if self.device["sim_card_missing"] else str(self.device["sim_card_status"])

    def data_works(self) -> bool:
        device, around = self.device, self.around
        roams = device["roaming_enabled"] and around["roaming_allowed"]
        return bool(
            not device["airplane_mode"]
            and device["network_signal_strength"] != "none"
            and device["network_connection_status"] != NO_SERVICE
            and (roams or not around["is_abroad"])
            and device["data_enabled"]
            and not around["mobile_data_usage_exceeded"]
        )

    def speed(self) -> tuple[float, str]:
        """Megabits a second, and a word for it; (0, "no connection") where no data flows."""
        if not self.data_works():
            return 0.0, "no connection"
        device = self.device
        details = device["vpn_details"]
        slow = device["vpn_connected"] and details and details["server_performance"] == "poor"
        factor = 0.1 if slow else 1.0
        if device["data_saver_mode"]:
            factor *= 0.2
        low, high = _SPEEDS[device["network_technology_connected"]]
        reach = _REACH[device["network_signal_strength"]]
        speed = round((low + high) / 2.0 * reach * factor, 2)
        words = ((1, "very poor"), (5, "poor"), (25, "fair"), (100, "good"))
        return speed, next((word for limit, word in words if speed < limit), "excellent")

    def sends_mms(self) -> bool:
        device, app = self.device, self.device["app_statuses"].get("messaging")
        over_wifi = device["wifi_calling_enabled"] and device["wifi_calling_mms_over_wifi"]
        return bool(
            self.data_works()
            and device["network_technology_connected"] != "2G"
            and not over_wifi
            and device["active_apn_settings"]["mmsc_url"] is not None
            and app is not None
            and app["permissions"]["storage"]
            and app["permissions"]["sms"]
        )

    def has_signal(self) -> bool:
        """Whether the status bar shows that there is service."""
        device = self.device
        return not device["airplane_mode"] and device["network_signal_strength"] != "none"

    # -- what happens to it

    def search(self) -> None:
        """Look for a network."""
        device = self.device
        found = (
            self.sim() == "active"
            and not device["airplane_mode"]
            and device["active_apn_settings"]["apn_name"] != "broken"
            and self.around["line_active"]
        )
        technology = level = "none"
        if found:
            signals = self.around["signal_strength"]
            technology = _TECHNOLOGY[device["network_mode_preference"]]
            if technology == "5G" and signals.get("5G", "none") == "none":
                technology = "4G"
            level = signals.get(technology, "none")
        device["network_connection_status"] = CONNECTED if found else NO_SERVICE
        device["network_technology_connected"] = technology
        device["network_signal_strength"] = level

    def leave_wifi(self) -> None:
        self.device.update(wifi_connected=False, wifi_ssid=None, wifi_signal_strength="none")

    def flip(self, name: str) -> bool:
        """Change a switch of the device; what it is then."""
        self.device[name] = not self.device[name]
        return bool(self.device[name])

    def flip_airplane_mode(self) -> bool:
        on = self.flip("airplane_mode")
        if on or self.device["wifi_enabled"]:
            self.leave_wifi()
        if on:
            self.disconnect()
        self.search()
        return on

    def flip_data(self) -> bool:
        on = self.flip("data_enabled")
        self.search()
        return on

    def flip_roaming(self) -> bool:
        on = self.flip("roaming_enabled")
        self.search()
        return on

    def connect(self) -> bool:
        """Connect the VPN, if it is not."""
        if self.device["vpn_connected"]:
            return False
        self.device.update(vpn_connected=True, vpn_details=self._vpn)
        return True

    def disconnect(self) -> bool:
        """Disconnect the VPN, if it is connected."""
        if not self.device["vpn_connected"]:
            return False
        self.device.update(vpn_connected=False, vpn_details=None)
        return True

    def apn(self, given: Mapping[str, Any]) -> None:
        """Set the APN; what is not given is as on a new phone."""
        self.device["active_apn_settings"] = shaped(self._apn | dict(given), _APN)
        self.search()

    def reboot(self) -> bool:
        """Start again; whether the APN was reset thereby."""
        reset = bool(self.device["active_apn_settings"]["reset_at_reboot"])
        if reset:
            self.device["active_apn_settings"] = copied(self._apn)
        self.search()
        return reset

    def bar(self) -> str:
        """The status bar, with the signs that the domain's manual tells the agent of."""
        device, shown = self.device, []
        if device["airplane_mode"]:
            shown.append("✈️ Airplane Mode")
        else:
            shown.append(_BARS[device["network_signal_strength"]])
            technology = device["network_technology_connected"]
            if technology != "none":
                shown.append(technology)
            if device["data_enabled"] and technology != "none":
                shown.append("📱 Data Enabled")
                if device["data_saver_mode"]:
                    shown.append("🔽 Data Saver")
            else:
                shown.append("📵 Data Disabled")
        if device["wifi_enabled"] and device["wifi_connected"]:
            ssid = device["wifi_ssid"]
            shown.append(f"📡 Connected to {ssid}" if ssid else "📡 Enabled")
        if device["vpn_connected"]:
            shown.append("🔒 VPN Connected")
        shown.append(f"🔋 {device['battery_level']}%")
        return f"Status bar: {' | '.join(shown)}"


_SPEEDS: Final = {
    "none": (0.0, 0.0),
    "2G": (0.1, 0.4),
    "3G": (1.0, 5.0),
    "4G": (10.0, 100.0),
    "5G": (50.0, 500.0),
}
"""Megabits a second, lowest and highest."""
_REACH: Final = {"none": 0.0, "poor": 0.2, "fair": 0.5, "good": 0.8, "excellent": 1.0}
_TECHNOLOGY: Final = dict(zip(MODES, ("5G", "4G", "3G", "2G"), strict=True))
_BARS: Final = {
    "none": "📵 No Signal",
    "poor": "📶¹ Poor",
    "fair": "📶² Fair",
    "good": "📶³ Good",
    "excellent": "📶⁴ Excellent",
}


# -- what the customer does on it

PHONE: Final = Kit()


def _is(what: str, on: bool, phone: Phone) -> str:
    return f"{what} is now {'on' if on else 'off'}. {phone.bar()}"


@PHONE.tool("what the status bar shows")
def check_status_bar(phone: Phone) -> str:
    return phone.bar()


@PHONE.tool("flight mode, SIM card, network, mobile data, roaming and Wi-Fi")
def check_network_status(phone: Phone) -> str:
    device = phone.device
    lines = [
        f"Airplane mode: {_on(device['airplane_mode'])}",
        f"SIM card: {phone.sim()}",
        f"connection: {device['network_connection_status']}",
        f"signal: {device['network_signal_strength']}",
        f"network: {device['network_technology_connected']}",
        f"mobile data: {_on(device['data_enabled'])}",
        f"data roaming: {_on(device['roaming_enabled'])}",
        f"Wi-Fi: {_on(device['wifi_enabled'])}",
        f"Wi-Fi network: {device['wifi_ssid'] if device['wifi_connected'] else 'none'}",
    ]
    return f"{'; '.join(lines)}."


def _on(value: bool) -> str:
    return "on" if value else "off"


@PHONE.tool("the preferred network mode")
def check_network_mode_preference(phone: Phone) -> str:
    return f"The network mode is {phone.device['network_mode_preference']}."


@PHONE.tool(f"prefer a network mode: {', '.join(MODES)}", writes=True)
def set_network_mode_preference(phone: Phone, mode: str) -> str:
    if mode not in MODES:
        return f"There is no mode {mode!r}, only {', '.join(MODES)}. {phone.bar()}"
    phone.device["network_mode_preference"] = mode
    phone.search()
    return f"The network mode is now {mode}. {phone.bar()}"


@PHONE.tool("how fast mobile data is")
def run_speed_test(phone: Phone) -> str:
    speed, word = phone.speed()
    if not phone.data_works():
        return "The speed test failed: no connection."
    return f"The speed test shows {speed:.2f} Mbps: {word}."


@PHONE.tool("switch flight mode on or off", writes=True)
def toggle_airplane_mode(phone: Phone) -> str:
    return _is("Airplane mode", phone.flip_airplane_mode(), phone)


_SIMS: Final = {
    "active": "The SIM card is active.",
    "missing": "No SIM card is found: it is missing.",
    "locked_pin": "The SIM card is locked: it wants a PIN.",
    "locked_puk": "The SIM card is locked: it wants a PUK.",
}


@PHONE.tool("whether the SIM card is there, and not locked")
def check_sim_status(phone: Phone) -> str:
    return _SIMS[phone.sim()]


@PHONE.tool("take the SIM card out and put it in again", writes=True)
def reseat_sim_card(phone: Phone) -> str:
    phone.device["sim_card_missing"] = False
    phone.search()
    return f"The SIM card is in its place. {phone.bar()}"


@PHONE.tool("switch mobile data on or off", writes=True)
def toggle_data(phone: Phone) -> str:
    return _is("Mobile data", phone.flip_data(), phone)


@PHONE.tool("switch data roaming on or off", writes=True)
def toggle_roaming(phone: Phone) -> str:
    return _is("Data roaming", phone.flip_roaming(), phone)


@PHONE.tool("whether Data Saver restricts data")
def check_data_restriction_status(phone: Phone) -> str:
    return f"Data Saver is {_on(phone.device['data_saver_mode'])}."


@PHONE.tool("switch Data Saver on or off", writes=True)
def toggle_data_saver_mode(phone: Phone) -> str:
    return _is("Data Saver", phone.flip("data_saver_mode"), phone)


@PHONE.tool("the APN and the URL for picture messages")
def check_apn_settings(phone: Phone) -> str:
    apn = phone.device["active_apn_settings"]
    return f"The APN is {apn['apn_name']}; the MMSC URL is {apn['mmsc_url'] or 'not set'}."


@PHONE.tool("enter APN settings: an object with apn_name, mmsc_url and so on", writes=True)
def set_apn_settings(phone: Phone, apn_settings: Record) -> str:
    phone.apn(apn_settings)
    return f"The APN is {phone.device['active_apn_settings']['apn_name']}. {phone.bar()}"


@PHONE.tool("go back to the first APN settings at the next restart", writes=True)
def reset_apn_settings(phone: Phone) -> str:
    phone.device["active_apn_settings"]["reset_at_reboot"] = True
    phone.search()
    return f"The APN settings will be reset when the phone restarts. {phone.bar()}"


@PHONE.tool("whether Wi-Fi is on, and which network it is")
def check_wifi_status(phone: Phone) -> str:
    device = phone.device
    if not device["wifi_enabled"]:
        return "Wi-Fi is off."
    if not device["wifi_connected"]:
        return "Wi-Fi is on, but in no network."
    return f"Wi-Fi is on, in {device['wifi_ssid']!r}, signal {device['wifi_signal_strength']}."


@PHONE.tool("switch Wi-Fi on or off; not possible in flight mode", writes=True)
def toggle_wifi(phone: Phone) -> str:
    if phone.device["airplane_mode"]:
        return f"Wi-Fi cannot be switched while airplane mode is on. {phone.bar()}"
    on = phone.flip("wifi_enabled")
    if not on:
        phone.leave_wifi()
    return _is("Wi-Fi", on, phone)


@PHONE.tool("whether calls go over Wi-Fi")
def check_wifi_calling_status(phone: Phone) -> str:
    return f"Wi-Fi calling is {_on(phone.device['wifi_calling_enabled'])}."


@PHONE.tool("switch Wi-Fi calling on or off", writes=True)
def toggle_wifi_calling(phone: Phone) -> str:
    return _is("Wi-Fi calling", phone.flip("wifi_calling_enabled"), phone)


@PHONE.tool("whether a VPN is connected, and how well it does")
def check_vpn_status(phone: Phone) -> str:
    device = phone.device
    if not device["vpn_connected"]:
        return f"The VPN is {'on, but not connected' if device['vpn_enabled_setting'] else 'off'}."
    details = device["vpn_details"]
    shown = ", ".join(str(value) for value in details.values()) if details else "no details"
    return f"The VPN is on and connected (server, protocol, performance: {shown})."


@PHONE.tool("connect the VPN", writes=True)
def connect_vpn(phone: Phone) -> str:
    if phone.connect():
        return f"The VPN is connected. {phone.bar()}"
    return "The VPN was connected already."


@PHONE.tool("disconnect the VPN", writes=True)
def disconnect_vpn(phone: Phone) -> str:
    found = phone.disconnect()
    return f"{'The VPN is disconnected.' if found else 'No VPN was connected.'} {phone.bar()}"


@PHONE.tool("which apps there are")
def check_installed_apps(phone: Phone) -> str:
    return f"These apps are installed: {', '.join(phone.device['app_statuses'])}."


def _granted(phone: Phone, app_name: str) -> str:
    app = phone.device["app_statuses"].get(app_name)
    if app is None:
        return f"There is no app {app_name!r}."
    granted = [name for name, holds in app["permissions"].items() if holds]
    return f"The app {app_name} has these permissions: {', '.join(granted) or 'none'}."


@PHONE.tool("what an app may do")
def check_app_status(phone: Phone, app_name: str) -> str:
    return _granted(phone, app_name)


@PHONE.tool("which permissions an app has")
def check_app_permissions(phone: Phone, app_name: str) -> str:
    return _granted(phone, app_name)


@PHONE.tool(f"give an app a permission: {', '.join(PERMISSIONS)}", writes=True)
def grant_app_permission(phone: Phone, app_name: str, permission: str) -> str:
    permission, app = permission.lower(), phone.device["app_statuses"].get(app_name)
    if app is None:
        return f"There is no app {app_name!r}. {phone.bar()}"
    if permission not in app["permissions"]:
        return (
            f"There is no permission {permission!r}, only {', '.join(PERMISSIONS)}. {phone.bar()}"
        )
    app["permissions"][permission] = True
    return f"The app {app_name} has now the permission {permission}. {phone.bar()}"


@PHONE.tool("whether picture messages can be sent")
def can_send_mms(phone: Phone) -> str:
    return f"The messaging app can{'' if phone.sends_mms() else 'not'} send MMS messages."


@PHONE.tool("restart the phone", writes=True)
def reboot_device(phone: Phone) -> str:
    reset = phone.reboot()
    return f"The phone has restarted{' and reset its APN settings' if reset else ''}. {phone.bar()}"


@PHONE.tool("whether the company asks for a payment")
def check_payment_request(phone: Phone) -> str:
    asked = phone.around["payment_request"]
    if asked is None:
        return "There is no payment request."
    return f"There is a payment request: {asked['amount_due']} USD for the bill {asked['bill_id']}."


@PHONE.tool("pay the bill that the company asks for", writes=True)
def make_payment(phone: Phone) -> str:
    asked = phone.around["payment_request"]
    if asked is None:
        return "There is no payment request, so nothing could be paid."
    asked["paid"] = True
    return f"{asked['amount_due']} USD were paid for the bill {asked['bill_id']}."


# -- what a task begins with


def _until(flip: Callable[[Phone], bool], wanted: bool) -> Callable[[Phone], None]:
    """Flip a switch, and again if it is not as wanted then."""

    def turn(phone: Phone) -> None:
        if flip(phone) != wanted:
            flip(phone)

    return turn


def _saver(phone: Phone) -> bool:
    return phone.flip("data_saver_mode")


def set_user_info(phone: Phone, name: str, phone_number: str) -> None:
    phone.around.update(name=name, phone_number=phone_number)


def set_user_location(phone: Phone, abroad: bool) -> None:
    phone.around["is_abroad"] = abroad


def unseat_sim_card(phone: Phone) -> None:
    phone.device["sim_card_missing"] = True
    phone.search()


def lock_sim_card(phone: Phone, mode: str) -> None:
    phone.device["sim_card_status"] = LOCKS[mode]
    phone.search()


def turn_data_on(phone: Phone) -> None:
    phone.device["data_enabled"] = True


def break_apn_settings(phone: Phone) -> None:
    phone.device["active_apn_settings"]["apn_name"] = "broken"
    phone.search()


def break_apn_mms_setting(phone: Phone) -> None:
    phone.device["active_apn_settings"]["mmsc_url"] = None


def set_wifi_calling(phone: Phone, enabled: bool, mms_over_wifi: bool | None = None) -> None:
    phone.device["wifi_calling_enabled"] = enabled
    if mms_over_wifi is not None:
        phone.device["wifi_calling_mms_over_wifi"] = mms_over_wifi


def break_vpn(phone: Phone) -> None:
    phone.connect()
    phone.device["vpn_details"]["server_performance"] = "poor"


def remove_app_permission(phone: Phone, app_name: str, permission: str) -> None:
    phone.device["app_statuses"][app_name]["permissions"][permission.lower()] = False


def simulate_network_search(phone: Phone) -> None:
    phone.search()


BEGIN: Final[Mapping[str, Callable[..., None]]] = {
    "turn_airplane_mode_on": _until(Phone.flip_airplane_mode, True),
    "turn_airplane_mode_off": _until(Phone.flip_airplane_mode, False),
    "turn_data_off": _until(Phone.flip_data, False),
    "turn_roaming_on": _until(Phone.flip_roaming, True),
    "turn_roaming_off": _until(Phone.flip_roaming, False),
    "turn_data_saver_mode_on": _until(_saver, True),
    "turn_data_saver_mode_off": _until(_saver, False),
    **{
        f.__name__: f
        for f in (
            set_user_info,
            set_user_location,
            unseat_sim_card,
            lock_sim_card,
            turn_data_on,
            break_apn_settings,
            break_apn_mms_setting,
            set_wifi_calling,
            break_vpn,
            remove_app_permission,
            simulate_network_search,
        )
    },
}


# -- what a task is judged by


def assert_airplane_mode_status(phone: Phone, expected_status: bool) -> bool:
    return bool(phone.device["airplane_mode"] == expected_status)


def assert_service_status(phone: Phone, expected_status: str) -> bool:
    return bool(phone.device["network_connection_status"] == expected_status)


def assert_mobile_data_status(phone: Phone, expected_status: bool) -> bool:
    return phone.data_works() == expected_status


def assert_mobile_roaming_status(phone: Phone, expected_status: bool) -> bool:
    return bool(phone.device["roaming_enabled"] == expected_status)


def assert_mobile_data_saver_mode_status(phone: Phone, expected_status: bool) -> bool:
    return bool(phone.device["data_saver_mode"] == expected_status)


def assert_internet_speed(
    phone: Phone, expected_speed: float, expected_desc: str | None = None
) -> bool:
    speed, word = phone.speed()
    return speed >= expected_speed and (expected_desc is None or expected_desc.lower() == word)


def assert_internet_not_excellent(phone: Phone) -> bool:
    return phone.speed()[1] != "excellent"


def assert_can_send_mms(phone: Phone, expected_status: bool) -> bool:
    return phone.sends_mms() == expected_status


def assert_mobile_data_usage_exceeded(phone: Phone, expected_status: bool) -> bool:
    return bool(phone.around["mobile_data_usage_exceeded"] == expected_status)


CHECKS: Final = {
    f.__name__: f
    for f in (
        assert_airplane_mode_status,
        assert_service_status,
        assert_mobile_data_status,
        assert_mobile_roaming_status,
        assert_mobile_data_saver_mode_status,
        assert_internet_speed,
        assert_internet_not_excellent,
        assert_can_send_mms,
        assert_mobile_data_usage_exceeded,
    )
}
