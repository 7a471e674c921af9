"""Suites by name. A new world is a line here, and a function `needs` beside it (see `needs`)."""

SUITES = {
    "household": "understudy.envs.household:Household",
    "doors": "understudy.envs.doors:Doors",
    "webshop": "understudy.envs.webshop:WebShop",
    "tau_bench": "understudy.envs.tau_bench:TauBench",
    "search_qa": "understudy.envs.search_qa:SearchQA",
    "travelplanner": "understudy.envs.travelplanner:TravelPlanner",
    "scienceworld": "understudy.envs.scienceworld:ScienceWorld",
}
"""Suites that need no path. They are trusted to run in this process, except:"""

APART = ("scienceworld",)
"""Suites that run in a worker process, with deadlines, as a user's own do."""

ADAPTERS = {
    "gymnasium": "understudy.envs.adapters.gymnasium:Gymnasium",
    "gem": "understudy.envs.adapters.gem:Gem",
    "openenv": "understudy.envs.adapters.openenv:OpenEnv",
    "verifiers": "understudy.envs.adapters.verifiers:Verifiers",
}
"""Suites of somebody else's environments, which run in a worker process like a user's own."""
