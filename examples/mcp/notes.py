"""Tasks over the tools of server.py, and what an episode earns."""

import json

THINGS = ("lamps", "cups", "chairs", "clocks")


def tasks(split):
    first = 0 if split == "train" else 1000
    return [task(first + n) for n in range(64)]


def task(n):
    one, other = THINGS[n % 4], THINGS[(n + 1) % 4]
    question = f"There were {n + 7} {one}, and 3 were sold. There are twice as many {other} now. Write both down."
    return {"id": f"stock/{n}", "question": question, "wanted": {one: n + 4, other: 2 * (n + 4)}}


def reward(played):
    """The share of what should stand in the notebook, which is read when the agent is done."""
    wanted = json.loads(played.task.data["wanted"])
    found = json.loads(played.ask("read"))
    share = sum(found.get(name) == count for name, count in wanted.items()) / len(wanted)
    return {"reward": share, "won": share == 1.0}
