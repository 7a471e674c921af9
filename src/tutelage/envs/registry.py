"""Suites by name. A new world is a line here, and a function `needs` beside it (see `needs`)."""

SUITES = {
    "household": "tutelage_worlds.household:Household",
    "doors": "tutelage.envs.doors:Doors",
    "webshop": "tutelage_worlds.webshop:WebShop",
    "tau_bench": "tutelage_worlds.tau_bench:TauBench",
    "search_qa": "tutelage_worlds.search_qa:SearchQA",
    "travelplanner": "tutelage_worlds.travelplanner:TravelPlanner",
    "scienceworld": "tutelage_worlds.scienceworld:ScienceWorld",
}
"""Suites that need no path. They are trusted to run in this process, except:"""

APART = ("scienceworld",)
"""Suites that run in a worker process, with deadlines, as a user's own do."""

ADAPTERS = {
    "gymnasium": "tutelage.envs.adapters.gymnasium:Gymnasium",
    "gem": "tutelage.envs.adapters.gem:Gem",
    "openenv": "tutelage.envs.adapters.openenv:OpenEnv",
    "verifiers": "tutelage.envs.adapters.verifiers:Verifiers",
}
"""Suites of somebody else's environments, which run in a worker process like a user's own."""
