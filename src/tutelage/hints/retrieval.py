"""Retrieval: which skills of a bank are shown for a task, besides the general ones.

family      the first file that names the task's family
keyword     the first file with a keyword in the task's own text: whole words, any case;
            "which & or" asks for both words. Later observations are never searched: they list
            actions of all families
similarity  the file nearest to the task's text, by the cosine of their words
ucb         one file, by the rewards of episodes with it (see `bandit`)
random      one file, drawn from the task's name
full        all files
"""

import math
import random
import re
from collections import Counter
from typing import Literal, get_args

from tutelage.hints.bandit import Bandit
from tutelage.hints.bank import Bank, Skill
from tutelage.types import Task

Retrieval = Literal["family", "keyword", "similarity", "ucb", "random", "full"]
RETRIEVALS: tuple[str, ...] = get_args(Retrieval)
WORD = re.compile(r"[a-z0-9]+")


def retrieve(bank: Bank, way: str, task: Task, description: str, bandit: Bandit) -> list[Skill]:
    """The skills for a task with the text `description`; empty if nothing matches."""
    if way == "full":
        return list(bank.skills)
    if way == "random":
        return [random.Random(f"skill for {task.id}").choice(bank.skills)]
    if way == "ucb":
        name = bandit.skill_of(task, [skill.name for skill in bank.skills])
        return [skill for skill in bank.skills if skill.name == name]
    if way == "similarity":
        return nearest(bank, description)
    if way == "keyword":
        found = [
            s for s in bank.skills if any(holds(description, keyword) for keyword in s.keywords)
        ]
    else:
        found = [skill for skill in bank.skills if task.family in skill.families]
    return found[:1]


def holds(text: str, keyword: str) -> bool:
    """Whether a text has a keyword's words, each part of "a & b" as whole words.

    >>> holds("Which is older, A or B?", "which & or"), holds("a sort", "or")
    (True, False)
    """
    parts = [part.strip() for part in keyword.split("&")]
    return all(re.search(rf"\b{re.escape(part)}\b", text, re.IGNORECASE) for part in parts)


def nearest(bank: Bank, description: str) -> list[Skill]:
    """The skill whose text has the largest cosine with `description`; none if no word is shared.

    A word w has the weight tf(w) ln(F / F_w), where F_w of F files contain it.
    """
    bags = [Counter(WORD.findall(skill.text.lower())) for skill in bank.skills]
    weight = {
        word: math.log(len(bags) / sum(word in bag for bag in bags))
        for word in sorted(set().union(*bags))
    }
    words = Counter(WORD.findall(description.lower()))
    near = [cosine(words, bag, weight) for bag in bags]
    best = max(near)
    return [bank.skills[near.index(best)]] if best > 0 else []


def cosine(a: Counter[str], b: Counter[str], weight: dict[str, float]) -> float:
    """Cosine of two bags of words; words without a weight are ignored."""

    def norm(bag: Counter[str]) -> float:
        return math.sqrt(sum((bag[w] * weight.get(w, 0.0)) ** 2 for w in sorted(bag)))

    dot = sum(a[w] * b[w] * weight.get(w, 0.0) ** 2 for w in sorted(a))
    norms = norm(a) * norm(b)
    return dot / norms if norms else 0.0
