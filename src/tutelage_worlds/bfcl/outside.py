"""Wishes about a car, shares and journeys."""

from collections.abc import Mapping
from typing import Any, Final

from tutelage_worlds.bfcl.draw import pick, several, whole
from tutelage_worlds.bfcl.wish import PEOPLE, Desk, Wish, call, enumerated

DOORS: Final = ("driver", "passenger", "rear_left", "rear_right")
STREETS: Final = ("Mill Road", "Station Square", "Harbour Street", "Abbey Lane", "Park Row")
SYMBOLS: Final = ("BRKO", "DUNA", "FJRD", "KITE", "LUMO", "MOSS", "PYRA", "QILL", "TIDE", "VELA")
CITIES: Final = ("Rivermist", "Stonebrook", "Maplecrest", "Oakendale", "Willowbend", "Silverpine")
FROM: Final = (("San Francisco", "SFO"), ("Los Angeles", "LAX"))
TO: Final = (
    ("Rivermist", "RMS"),
    ("Stonebrook", "SBK"),
    ("Maplecrest", "MPC"),
    ("Oakendale", "OKD"),
)
"""Cities and airports between which the simulated API has flights."""
RATES: Final = ("EUR", "JPY", "GBP", "CAD", "AUD")


class Car(Desk):
    api = "VehicleControlAPI"
    kinds = ("fill", "lock", "drive", "climate", "lights", "goal", "tires", "brake", "way", "level")

    def __init__(self, rng: Any) -> None:
        super().__init__(rng)
        self.fuel = whole(rng, 5, 25)
        self.open = [door for door in DOORS if rng.random() < 0.5]
        self.running = False
        self.pressures = [28.0 + whole(rng, 0, 8) for _ in range(4)]
        self.seed = whole(rng, 1, 999_999)

    def start(self) -> Mapping[str, Any]:
        front_left, front_right, rear_left, rear_right = self.pressures
        return {
            "random_seed": self.seed,
            "fuelLevel": float(self.fuel),
            "batteryVoltage": 12.6,
            "engineState": "stopped",
            "doorStatus": {door: "unlocked" if door in self.open else "locked" for door in DOORS},
            "acTemperature": 20.0,
            "fanSpeed": 50,
            "acMode": "auto",
            "humidityLevel": 45.0,
            "headLightStatus": "off",
            "parkingBrakeStatus": "released",
            "parkingBrakeForce": 0.0,
            "slopeAngle": 0.0,
            "brakePedalStatus": "released",
            "brakePedalForce": 0.0,
            "distanceToNextVehicle": 50.0,
            "cruiseStatus": "inactive",
            "destination": "None",
            "frontLeftTirePressure": front_left,
            "frontRightTirePressure": front_right,
            "rearLeftTirePressure": rear_left,
            "rearRightTirePressure": rear_right,
        }

    def fill(self) -> Wish | None:
        amount = whole(self.rng, 3, 20)
        if self.fuel + amount > 50:
            return None
        self.fuel += amount
        return Wish(
            says=self.words(
                f"Put {amount} gallons of fuel into the tank.", f"Fill in {amount} more gallons."
            ),
            vague="Put some fuel into the tank.",
            detail=f"{amount} gallons.",
            calls=(call("fillFuelTank", fuelAmount=amount),),
        )

    def lock(self) -> Wish | None:
        if not self.open:
            return None
        doors, self.open = list(self.open), []
        names = enumerated([door.replace("_", " ") for door in doors])
        return Wish(
            says=self.words(f"Lock these doors: {names}.", f"Please lock the doors {names}."),
            vague="Lock the doors that I will name.",
            detail=f"They are {names}.",
            calls=(call("lockDoors", unlock=False, door=doors),),
        )

    def drive(self) -> Wish | None:
        if self.running:
            return None
        self.running = True
        way = [call("lockDoors", unlock=False, door=list(DOORS))] if self.open else []
        first = "Lock all four doors, then start" if self.open else "Start"
        self.open = []
        return Wish(
            says=f"{first} the engine, with the brake pedal pressed down all the way.",
            calls=(
                *way,
                call("pressBrakePedal", pedalPosition=1.0),
                call("startEngine", ignitionMode="START"),
            ),
        )

    def climate(self) -> Wish | None:
        degrees, speed = whole(self.rng, 16, 26), 10 * whole(self.rng, 1, 10)
        mode = pick(self.rng, ("cool", "heat", "auto", "defrost"))
        asked = call(
            "adjustClimateControl",
            temperature=degrees,
            unit="celsius",
            fanSpeed=speed,
            mode=mode,
        )
        return Wish(
            says=f"Set the climate to {degrees} degrees Celsius, mode {mode}, fan at {speed}.",
            vague=f"Set the climate to mode {mode}, with the fan at {speed}.",
            detail=f"To {degrees} degrees Celsius.",
            calls=(asked,),
        )

    def lights(self) -> Wish | None:
        mode = pick(self.rng, ("on", "off"))
        return Wish(
            says=self.words(f"Turn the headlights {mode}.", f"Headlights {mode}, please."),
            calls=(call("setHeadlights", mode=mode),),
        )

    def goal(self) -> Wish | None:
        place = f"{whole(self.rng, 1, 90)} {pick(self.rng, STREETS)}, {pick(self.rng, CITIES)}"
        return Wish(
            says=self.words(f"Navigate to '{place}'.", f"Take me to '{place}'."),
            vague="Start the navigation.",
            detail=f"To '{place}'.",
            calls=(call("set_navigation", destination=place),),
        )

    def tires(self) -> Wish | None:
        return Wish(
            says=self.words("Is the pressure of the tires right?", "Check the tires."),
            calls=(call("check_tire_pressure"),),
        )

    def brake(self) -> Wish | None:
        mode = pick(self.rng, ("engage", "release"))
        return Wish(
            says=f"{mode.capitalize()} the parking brake.",
            calls=(call("activateParkingBrake", mode=mode),),
        )

    def way(self) -> Wish | None:
        city = pick(self.rng, CITIES)
        return Wish(
            says=self.words(f"What is the zip code of {city}?", f"Look up {city}'s zip code."),
            vague="Look up a city's zip code.",
            detail=f"I mean {city}.",
            calls=(call("get_zipcode_based_on_city", city=city),),
        )

    def level(self) -> Wish | None:
        what, option = pick(
            self.rng,
            (("fuel", "fuel"), ("battery", "battery"), ("doors", "doors"), ("engine", "engine")),
        )
        return Wish(
            says=f"Show me the status of the {what}.",
            calls=(call("displayCarStatus", option=option),),
        )


class Shares(Desk):
    api = "TradingBot"
    kinds = ("price", "buy", "watch", "forget", "deposit", "withdraw", "cancel", "account", "order")

    def __init__(self, rng: Any) -> None:
        super().__init__(rng)
        symbols = several(rng, SYMBOLS, 6)
        self.prices = {symbol: whole(rng, 500, 20_000) / 100 for symbol in symbols}
        self.watched = symbols[:2]
        self.counter = whole(rng, 200, 900)
        self.orders = {
            self.counter - 2: ("Sell", symbols[2], "Completed"),
            self.counter - 1: ("Buy", symbols[3], "Open"),
        }
        self.balance = whole(rng, 3_000, 9_000)
        self.account_id = whole(rng, 10_000, 99_999)
        self.seed = whole(rng, 1, 999_999)

    def start(self) -> Mapping[str, Any]:
        return {
            "random_seed": self.seed,
            "orders": {
                str(number): {
                    "id": number,
                    "order_type": kind,
                    "symbol": symbol,
                    "price": self.prices[symbol],
                    "amount": 4,
                    "status": status,
                }
                for number, (kind, symbol, status) in self.orders.items()
            },
            "account_info": {
                "account_id": self.account_id,
                "balance": float(self.balance),
                "binding_card": 4000_0000_0000_0000 + self.account_id,
            },
            "authenticated": True,
            "market_status": "Open",
            "order_counter": self.counter,
            "stocks": {
                symbol: {
                    "price": price,
                    "percent_change": 0.25,
                    "volume": 1.5,
                    "MA(5)": price,
                    "MA(20)": price,
                }
                for symbol, price in self.prices.items()
            },
            "watch_list": list(self.watched),
            "transaction_history": [],
        }

    def price(self) -> Wish | None:
        symbol = pick(self.rng, list(self.prices))
        return Wish(
            says=self.words(f"What does a share of {symbol} cost?", f"How does {symbol} stand?"),
            vague="What does a share cost now?",
            detail=f"One of {symbol}.",
            calls=(call("get_stock_info", symbol=symbol),),
        )

    def buy(self) -> Wish | None:
        symbol, amount = pick(self.rng, list(self.prices)), whole(self.rng, 1, 10)
        price = self.prices[symbol]
        if price * amount > self.balance:
            return None
        self.orders[self.counter] = ("Buy", symbol, "Open")
        self.counter += 1
        return Wish(
            says=self.words(
                f"Buy {amount} shares of {symbol} at what they cost now.",
                f"I want {amount} {symbol}: look at the price, and order them for it.",
            ),
            vague=f"Buy shares of {symbol} at what they cost now.",
            detail=f"I want {amount} of them.",
            calls=(
                call("get_stock_info", symbol=symbol),
                call("place_order", order_type="Buy", symbol=symbol, price=price, amount=amount),
            ),
        )

    def watch(self) -> Wish | None:
        symbol = pick(self.rng, [each for each in self.prices if each not in self.watched] or [""])
        if not symbol:
            return None
        self.watched.append(symbol)
        return Wish(
            says=self.words(f"Put {symbol} on my watch list.", f"I want to watch {symbol}."),
            vague="Put another share on my watch list.",
            detail=f"It is {symbol}.",
            calls=(call("add_to_watchlist", stock=symbol),),
        )

    def forget(self) -> Wish | None:
        if not self.watched:
            return None
        symbol = self.watched.pop(int(len(self.watched) * self.rng.random()))
        return Wish(
            says=self.words(
                f"Take {symbol} off my watch list.", f"I need not watch {symbol} any longer."
            ),
            vague="Take one off my watch list.",
            detail=f"{symbol}, please.",
            calls=(call("remove_stock_from_watchlist", symbol=symbol),),
        )

    def deposit(self) -> Wish | None:
        amount = 100 * whole(self.rng, 1, 20)
        self.balance += amount
        return Wish(
            says=self.words(f"Pay {amount} dollars into my account.", f"Deposit {amount} dollars."),
            vague="Pay some money into my account.",
            detail=f"{amount} dollars.",
            calls=(call("fund_account", amount=amount),),
        )

    def withdraw(self) -> Wish | None:
        amount = 100 * whole(self.rng, 1, 9)
        if amount > self.balance:
            return None
        self.balance -= amount
        return Wish(
            says=self.words(f"Withdraw {amount} dollars.", f"Pay me out {amount} dollars."),
            vague="Withdraw some money.",
            detail=f"{amount} dollars.",
            calls=(call("withdraw_funds", amount=amount),),
        )

    def cancel(self) -> Wish | None:
        left = [number for number, order in self.orders.items() if order[2] == "Open"]
        if not left:
            return None
        number = pick(self.rng, left)
        kind, symbol, _ = self.orders[number]
        self.orders[number] = (kind, symbol, "Cancelled")
        return Wish(
            says=self.words(
                f"Cancel the order {number}.", f"I do not want order {number} any more."
            ),
            vague="Cancel one of my orders.",
            detail=f"Number {number}.",
            calls=(call("cancel_order", order_id=number),),
        )

    def account(self) -> Wish | None:
        return Wish(
            says=self.words("How much money do I have?", "Show me my account."),
            calls=(call("get_account_info"),),
        )

    def order(self) -> Wish | None:
        number = pick(self.rng, list(self.orders))
        return Wish(
            says=self.words(f"What about my order {number}?", f"Show me the order {number}."),
            vague="Show me one of my orders.",
            detail=f"The one with the number {number}.",
            calls=(call("get_order_details", order_id=number),),
        )


class Journeys(Desk):
    api = "TravelAPI"
    kinds = ("cost", "book", "call_off", "money", "rate", "airport", "limit", "bill")

    def __init__(self, rng: Any) -> None:
        super().__init__(rng)
        self.first, self.last = several(rng, PEOPLE, 2)
        self.token = f"tok{whole(rng, 100_000, 999_999)}"
        self.card = str(whole(rng, 100_000, 999_999))
        self.bookings = [str(whole(rng, 1_000_000, 9_999_999))]
        self.balance = 1_000 * whole(rng, 40, 90)
        self.seed = whole(rng, 1, 999_999)
        self.has_token = False  # whether the token and the card were told

    def start(self) -> Mapping[str, Any]:
        return {
            "random_seed": self.seed,
            "credit_card_list": {
                self.card: {
                    "card_number": f"4000{self.card}",
                    "expiration_date": "12/2029",
                    "cardholder_name": f"{self.first} {self.last}",
                    "card_verification_number": 321,
                    "balance": self.balance,
                }
            },
            "booking_record": {
                self.bookings[0]: {
                    "card_id": self.card,
                    "travel_date": "2025-03-04",
                    "travel_from": "SFO",
                    "travel_to": "LAX",
                    "travel_class": "economy",
                    "travel_cost": 200.0,
                    "transaction_id": "71420536",
                }
            },
            "access_token": self.token,
            "token_type": "Bearer",
            "token_expires_in": 3600,
            "token_scope": "read_write",
            "user_first_name": self.first,
            "user_last_name": self.last,
            "budget_limit": 1000.0,
        }

    def _known(self) -> str:
        """The token, where it was not told before."""
        if self.has_token:
            return ""
        self.has_token = True
        return f"My access token is {self.token} and my card {self.card}. "

    def _flight(self) -> tuple[str, dict[str, str]]:
        (city, airport), (goal, other) = pick(self.rng, FROM), pick(self.rng, TO)
        date = f"2026-{whole(self.rng, 1, 12):02d}-{whole(self.rng, 1, 28):02d}"
        kind = pick(self.rng, ("economy", "business"))
        words = f"from {city} ({airport}) to {goal} ({other}) on {date}"
        given = {
            "travel_from": airport,
            "travel_to": other,
            "travel_date": date,
            "travel_class": kind,
        }
        return words, given

    def cost(self) -> Wish | None:
        words, given = self._flight()
        kind = given["travel_class"]
        return Wish(
            says=f"What does a flight {words} cost in {kind} class?",
            vague=f"What does a flight {words} cost?",
            detail=f"In {kind} class.",
            calls=(call("get_flight_cost", **given),),
        )

    def book(self) -> Wish | None:
        known = self._known()
        words, given = self._flight()
        kind = given["travel_class"]
        return Wish(
            says=f"{known}Book a flight {words} in {kind} class, on my card.",
            vague=f"{known}Book a flight {words}, on my card.",
            detail=f"It shall be {kind} class.",
            calls=(call("book_flight", access_token=self.token, card_id=self.card, **given),),
        )

    def call_off(self) -> Wish | None:
        if not self.bookings:
            return None
        known, number = self._known(), self.bookings.pop()
        return Wish(
            says=f"{known}Cancel my booking {number}.",
            vague=f"{known}Cancel a booking of mine.",
            detail=f"Its number is {number}.",
            calls=(call("cancel_booking", access_token=self.token, booking_id=number),),
        )

    def money(self) -> Wish | None:
        known = self._known()
        return Wish(
            says=f"{known}How much is left on my card {self.card}?",
            calls=(call("get_credit_card_balance", access_token=self.token, card_id=self.card),),
        )

    def rate(self) -> Wish | None:
        currency, amount = pick(self.rng, RATES), 10 * whole(self.rng, 1, 90)
        asked = call(
            "compute_exchange_rate", base_currency="USD", target_currency=currency, value=amount
        )
        return Wish(
            says=self.words(
                f"How much are {amount} USD in {currency}?", f"{amount} USD in {currency}?"
            ),
            vague=f"How much are {amount} USD in another currency?",
            detail=f"In {currency}.",
            calls=(asked,),
        )

    def airport(self) -> Wish | None:
        city = pick(self.rng, CITIES)
        return Wish(
            says=self.words(
                f"Which airport is nearest to {city}?", f"From where does one fly in {city}?"
            ),
            vague="Which airport is nearest?",
            detail=f"To {city}.",
            calls=(call("get_nearest_airport_by_city", location=city),),
        )

    def limit(self) -> Wish | None:
        known, amount = self._known(), 500 * whole(self.rng, 1, 12)
        return Wish(
            says=f"{known}Set my budget limit to {amount} dollars.",
            vague=f"{known}Set a budget limit.",
            detail=f"{amount} dollars.",
            calls=(call("set_budget_limit", access_token=self.token, budget_limit=amount),),
        )

    def bill(self) -> Wish | None:
        if not self.bookings:
            return None
        known, number = self._known(), self.bookings[-1]
        return Wish(
            says=f"{known}Show me the invoice of my booking {number}.",
            vague=f"{known}Show me an invoice.",
            detail=f"That of the booking {number}.",
            calls=(call("retrieve_invoice", access_token=self.token, booking_id=number),),
        )
