"""The texts of a household game: the commands and their answers.

The rules are fixed; their wording is data, because game files of different ages differ in it:
"move {o} to {r}" or "put {o} in/on {r}", "You arrive at {r}" or "You arrive at {l}".
"""

from dataclasses import dataclass

NOTHING = "Nothing happens."

_HELP = (
    ("look", 34, "look around your current location"),
    ("inventory", 34, "check your current inventory"),
    ("go to (receptacle)", 34, "move to a receptacle"),
    ("open (receptacle)", 34, "open a receptacle"),
    ("close (receptacle)", 34, "close a receptacle"),
    ("take (object) from (receptacle)", 34, "take an object from a receptacle"),
    ("move (object) to (receptacle)", 32, "place an object in or on a receptacle"),
    ("examine (something)", 34, "examine a receptacle or an object"),
    ("use (object)", 34, "use an object"),
    ("heat (object) with (receptacle)", 34, "heat an object using a receptacle"),
    ("clean (object) with (receptacle)", 34, "clean an object using a receptacle"),
    ("cool (object) with (receptacle)", 34, "cool an object using a receptacle"),
    ("slice (object) with (object)", 34, "slice an object using a sharp object"),
)


def _help() -> str:
    lines = ("  " + f"{name}:".ljust(width) + says for name, width, says in _HELP)
    return "Available commands:\n" + "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """Format strings over names: `{o}` object, `{r}` receptacle, `{l}` location, `{k}` knife,
    `{seen}` the description of the receptacle, `{list}` an enumeration, `{task}` the task sentence.

    An empty command means that the game does not have it.
    """

    go: str = "go to {r}"
    open: str = "open {r}"
    close: str = "close {r}"
    take: str = "take {o} from {r}"
    put: str = "move {o} to {r}"
    examine_receptacle: str = "examine {r}"
    examine_object: str = "examine {o}"
    use: str = "use {o}"
    heat: str = "heat {o} with {r}"
    clean: str = "clean {o} with {r}"
    cool: str = "cool {o} with {r}"
    slice: str = "slice {o} with {k}"
    inventory: str = "inventory"
    look: str = "look"
    help: str = "help"

    intro: str = "-= Welcome to TextWorld, ALFRED! =-\n\n{look}\n\n{task}"
    task: str = "Your task is to: {task}."
    arrived: str = "You arrive at {r}. {seen}"
    opened: str = "You open the {r}. {seen}"
    closed: str = "You close the {r}."
    taken: str = "You pick up the {o} from the {r}."
    placed: str = "You move the {o} to the {r}."
    heated: str = "You heat the {o} using the {r}."
    cleaned: str = "You clean the {o} using the {r}."
    cooled: str = "You cool the {o} using the {r}."
    sliced: str = "You sliced the {o} with the {k}."
    used: str = "You turn on the {o}."
    helped: str = _help()
    facing: str = "You are facing the {list}. Next to it, you see {floor}."
    middle: str = "You are in the middle of a room. Looking quickly around you, you see {list}."
    carrying: str = "You are carrying: {list}."
    empty_handed: str = "You are not carrying anything."
    is_open: str = "The {r} is open. In it, you see {list}."
    is_closed: str = "The {r} is closed."
    surface: str = "On the {r}, you see {list}."
    vessel: str = "This is a normal {o}. In it, you see {list}."
    plain: str = "There's nothing special about {o}."
    lit: str = "This {o} is on."
    quality: str = "This is a {quality} {o}."


DEFAULT = Wording()


def listing(names: list[str]) -> str:
    """ "a, b, and c"; "a, and b"; "nothing"."""
    if not names:
        return "nothing"
    if len(names) == 1:
        return names[0]
    return ", ".join(names[:-1]) + ", and " + names[-1]
