"""Suites by name. A new world is a line here, and a function `needs` beside it (see `needs`)."""

SUITES = {
    "household": "understudy.envs.household:Household",
    "doors": "understudy.envs.doors:Doors",
    "webshop": "understudy.envs.webshop:WebShop",
    "tau_bench": "understudy.envs.tau_bench:TauBench",
}
"""Suites that need no path. They are trusted to run in this process."""
