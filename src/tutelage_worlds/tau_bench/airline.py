"""The tools of tau-bench's airline (arXiv:2406.12045, repository sierra-research/tau-bench).

As there, no seat is taken from a flight, a failed update forgets its new prices, and a certificate
that is named twice in one booking is used up although the booking fails.
"""

import json
from collections.abc import Iterator
from typing import Any

from tutelage_worlds.tau_bench.database import Database, Record, copied
from tutelage_worlds.tau_bench.tools import Kit, common

AIRLINE = Kit()
common(AIRLINE)

NOW = "2024-05-15T15:00:00"
BAGGAGE, INSURANCE = 50, 30
AIRPORTS = {
    "SFO": "San Francisco",
    "JFK": "New York",
    "LAX": "Los Angeles",
    "ORD": "Chicago",
    "DFW": "Dallas",
    "DEN": "Denver",
    "SEA": "Seattle",
    "ATL": "Atlanta",
    "MIA": "Miami",
    "BOS": "Boston",
    "PHX": "Phoenix",
    "IAH": "Houston",
    "LAS": "Las Vegas",
    "MCO": "Orlando",
    "EWR": "Newark",
    "CLT": "Charlotte",
    "MSP": "Minneapolis",
    "DTW": "Detroit",
    "PHL": "Philadelphia",
    "LGA": "LaGuardia",
}
NO_RESERVATION, NO_METHOD = "Error: reservation not found", "Error: payment method not found"


# -- looking up


@AIRLINE.tool("a user's profile: payment methods, saved passengers, reservations")
def get_user_details(data: Database, user_id: str) -> str:
    if user_id in data["users"]:
        return json.dumps(data["users"][user_id])
    return "Error: user not found"


@AIRLINE.tool("a reservation's flights, passengers and payments")
def get_reservation_details(data: Database, reservation_id: str) -> str:
    if reservation_id in data["reservations"]:
        return json.dumps(data["reservations"][reservation_id])
    return "Error: user not found"


@AIRLINE.tool("airport codes and their cities")
def list_all_airports(data: Database) -> str:
    return json.dumps(AIRPORTS)


def _on(flight: Record, date: str) -> Record:
    """A flight on one day."""
    day: Record = flight["dates"][date]
    return {k: v for k, v in flight.items() if k != "dates"} | day


def _open(flight: Record, date: str) -> bool:
    return date in flight["dates"] and flight["dates"][date]["status"] == "available"


@AIRLINE.tool("flights between two airports on a day such as 2024-05-20")
def search_direct_flight(data: Database, origin: str, destination: str, date: str) -> str:
    found = [
        _on(flight, date)
        for flight in data["flights"].values()
        if flight["origin"] == origin and flight["destination"] == destination
        if _open(flight, date)
    ]
    return json.dumps(found)


@AIRLINE.tool("pairs of connecting flights between two airports on a day")
def search_onestop_flight(data: Database, origin: str, destination: str, date: str) -> str:
    found = []
    for first, second in _connections(data, origin, destination):
        late = "+1" in first["scheduled_arrival_time_est"]
        # tau-bench's own month
        next_day = f"2024-05-{int(date[-2:]) + 1}" if late else date
        if first["scheduled_arrival_time_est"] > second["scheduled_departure_time_est"]:
            continue
        if date not in first["dates"] or next_day not in second["dates"]:
            continue
        if _open(first, date) and _open(second, next_day):
            # prices and seats of the second flight are those of the first one's day
            pair = [_on(first, date) | {"date": date}, _on(second, date) | {"date": next_day}]
            found.append(pair)
    return json.dumps(found)


def _connections(data: Database, origin: str, destination: str) -> Iterator[tuple[Record, Record]]:
    for first in data["flights"].values():
        if first["origin"] == origin:
            for second in data["flights"].values():
                if (
                    second["destination"] == destination
                    and first["destination"] == second["origin"]
                ):
                    yield first, second


# -- changing


def _fare(data: Database, flight: Record, cabin: str, passengers: list[Record]) -> str:
    """Put price and airports into a flight that is asked for; why it cannot be had, or nothing."""
    number = flight["flight_number"]
    if number not in data["flights"]:
        return f"Error: flight {number} not found"
    known, date = data["flights"][number], flight["date"]
    if date not in known["dates"]:
        return f"Error: flight {number} not found on date {date}"
    day = known["dates"][date]
    if day["status"] != "available":
        return f"Error: flight {number} not available on date {date}"
    if day["available_seats"][cabin] < len(passengers):
        return f"Error: not enough seats on flight {number}"
    flight["price"] = day["prices"][cabin]
    flight["origin"] = known["origin"]
    flight["destination"] = known["destination"]
    return ""


@AIRLINE.tool(
    "book flights; payment_methods is a list of {payment_id, amount} that add up to the price",
    writes=True,
)
def book_reservation(
    data: Database,
    user_id: str,
    origin: str,
    destination: str,
    flight_type: str,
    cabin: str,
    flights: list[Record],
    passengers: list[Record],
    payment_methods: list[Record],
    total_baggages: int,
    nonfree_baggages: int,
    insurance: str,
) -> str:
    if user_id not in data["users"]:
        return "Error: user not found"
    free = [i for i in ("HATHAT", "HATHAU") if i not in data["reservations"]]
    reservation = {
        "reservation_id": free[0] if free else "HATHAV",
        "user_id": user_id,
        "origin": origin,
        "destination": destination,
        "flight_type": flight_type,
        "cabin": cabin,
        "flights": copied(flights),
        "passengers": passengers,
        "payment_history": payment_methods,
        "created_at": NOW,
        "total_baggages": total_baggages,
        "nonfree_baggages": nonfree_baggages,
        "insurance": insurance,
    }
    price: Any = 0
    for flight in reservation["flights"]:
        if problem := _fare(data, flight, cabin, passengers):
            return problem
        price += flight["price"] * len(passengers)
    if insurance == "yes":
        price += INSURANCE * len(passengers)
    price += BAGGAGE * nonfree_baggages
    if problem := _unpaid(data["users"][user_id]["payment_methods"], payment_methods, price):
        return problem
    user = data["users"].edit(user_id)
    for payment in payment_methods:
        payment_id, amount = payment["payment_id"], payment["amount"]
        method = user["payment_methods"][payment_id]
        if method["source"] == "gift_card":
            method["amount"] -= amount
        elif method["source"] == "certificate":
            del user["payment_methods"][payment_id]
    data["reservations"].add(reservation["reservation_id"], reservation)
    user["reservations"].append(reservation["reservation_id"])
    return json.dumps(reservation)


def _unpaid(methods: Record, payments: list[Record], price: Any) -> str:
    """Why payments do not pay a price, or nothing."""
    for payment in payments:
        payment_id, amount = payment["payment_id"], payment["amount"]
        if payment_id not in methods:
            return f"Error: payment method {payment_id} not found"
        method = methods[payment_id]
        if method["source"] in ("gift_card", "certificate") and method["amount"] < amount:
            return f"Error: not enough balance in payment method {payment_id}"
    paid = sum(payment["amount"] for payment in payments)
    if paid != price:
        return f"Error: payment amount does not add up, total price is {price}, but paid {paid}"
    return ""


@AIRLINE.tool("cancel a whole reservation and refund its payments", writes=True)
def cancel_reservation(data: Database, reservation_id: str) -> str:
    if reservation_id not in data["reservations"]:
        return NO_RESERVATION
    reservation = data["reservations"].edit(reservation_id)
    refunds = [
        {"payment_id": payment["payment_id"], "amount": -payment["amount"]}
        for payment in reservation["payment_history"]
    ]
    reservation["payment_history"].extend(refunds)
    reservation["status"] = "cancelled"
    return json.dumps(reservation)


@AIRLINE.tool("give a user a certificate of an amount", writes=True)
def send_certificate(data: Database, user_id: str, amount: int) -> str:
    if user_id not in data["users"]:
        return "Error: user not found"
    for number in (3221322, 3221323, 3221324):
        payment_id = f"certificate_{number}"
        if payment_id not in data["users"][user_id]["payment_methods"]:
            data["users"].edit(user_id)["payment_methods"][payment_id] = {
                "source": "certificate",
                "amount": amount,
                "id": payment_id,
            }
            return f"Certificate {payment_id} added to user {user_id} with amount {amount}."
    # tau-bench has no answer here and stops with an exception of its own
    return "Error: the user has three certificates already"


def _charge(data: Database, user_id: str, payment_id: str, price: Any) -> str:
    """Whether a method can pay for a change of a reservation: the problem, or nothing."""
    methods = data["users"][user_id]["payment_methods"]
    if payment_id not in methods:
        return NO_METHOD
    method = methods[payment_id]
    if method["source"] == "certificate":
        return "Error: certificate cannot be used to update reservation"
    if method["source"] == "gift_card" and method["amount"] < price:
        return "Error: gift card balance is not enough"
    return ""


def _take(data: Database, user_id: str, payment_id: str, price: Any) -> None:
    if data["users"][user_id]["payment_methods"][payment_id]["source"] == "gift_card":
        data["users"].edit(user_id)["payment_methods"][payment_id]["amount"] -= price


@AIRLINE.tool("add bags to a reservation: the new totals", writes=True)
def update_reservation_baggages(
    data: Database,
    reservation_id: str,
    total_baggages: int,
    nonfree_baggages: int,
    payment_id: str,
) -> str:
    if reservation_id not in data["reservations"]:
        return NO_RESERVATION
    now = data["reservations"][reservation_id]
    price = BAGGAGE * max(0, nonfree_baggages - now["nonfree_baggages"])
    if problem := _charge(data, now["user_id"], payment_id, price):
        return problem
    reservation = data["reservations"].edit(reservation_id)
    reservation["total_baggages"] = total_baggages
    reservation["nonfree_baggages"] = nonfree_baggages
    _take(data, reservation["user_id"], payment_id, price)
    if price != 0:
        reservation["payment_history"].append({"payment_id": payment_id, "amount": price})
    return json.dumps(reservation)


@AIRLINE.tool("change cabin or flights of a reservation: all its flights, old and new", writes=True)
def update_reservation_flights(
    data: Database, reservation_id: str, cabin: str, flights: list[Record], payment_id: str
) -> str:
    if reservation_id not in data["reservations"]:
        return NO_RESERVATION
    now = data["reservations"][reservation_id]
    seats, price = len(now["passengers"]), 0
    flights = copied(flights)
    for flight in flights:
        unchanged = [
            f
            for f in now["flights"]
            if f["flight_number"] == flight["flight_number"]
            and f["date"] == flight["date"]
            and cabin == now["cabin"]
        ]
        if unchanged:
            flight.update({k: unchanged[0][k] for k in ("price", "origin", "destination")})
        elif problem := _fare(data, flight, cabin, now["passengers"]):
            return problem
        price += flight["price"] * seats
    price -= sum(flight["price"] for flight in now["flights"]) * seats
    if problem := _charge(data, now["user_id"], payment_id, price):
        return problem
    _take(data, now["user_id"], payment_id, price)
    reservation = data["reservations"].edit(reservation_id)
    # the cabin stays what it was, as in tau-bench
    reservation["flights"] = flights
    if price != 0:
        reservation["payment_history"].append({"payment_id": payment_id, "amount": price})
    return json.dumps(reservation)


@AIRLINE.tool("replace the passengers of a reservation; their number stays", writes=True)
def update_reservation_passengers(
    data: Database, reservation_id: str, passengers: list[Record]
) -> str:
    if reservation_id not in data["reservations"]:
        return NO_RESERVATION
    if len(passengers) != len(data["reservations"][reservation_id]["passengers"]):
        return "Error: number of passengers does not match"
    reservation = data["reservations"].edit(reservation_id)
    reservation["passengers"] = passengers
    return json.dumps(reservation)
