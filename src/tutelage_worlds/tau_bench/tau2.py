"""The one tool that tau2-bench's retail tasks use and tau-bench lacks.

Its tasks are played here by tau-bench's rules and judged by the database, and by what the customer
was told where the task says so or does not say. What tau2-bench also judges, by a language model or
by the calls that were made, is not implemented.
"""

import json
from typing import Final

from tutelage_worlds.tau_bench.database import Database
from tutelage_worlds.tau_bench.retail import RETAIL
from tutelage_worlds.tau_bench.tools import Kit

TAU2: Final = Kit(RETAIL)


@TAU2.tool("an item's options, price and availability")
def get_item_details(data: Database, item_id: str) -> str:
    for product in data["products"].values():
        if item_id in product["variants"]:
            return json.dumps(product["variants"][item_id])
    return "Error: item not found"
