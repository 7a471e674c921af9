"""A toy world of tool calls, in plain Python, for libraries that are compared on the same work.

An archive of records. The only tool, `open_record`, takes a drawer, a folder and a page, and
answers with the record that lies there: 40 words or so, and where the next one is. What it says
depends on its arguments alone, so that a library whose tools cannot remember plays the same game.
Every place is worth a reward of its own; nothing ever ends an episode but its limit of turns, or a
message without a call.
"""

import json
import random
import re
from collections.abc import Iterator
from typing import Any

TOOL = "open_record"
CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
ROLE, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m.role == 'tool' -%}"
    "{{ '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
    "{%- else -%}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- for c in m.tool_calls or [] -%}"
    "{{ '<tool_call>\n' + c.function | tojson + '\n</tool_call>' }}"
    "{%- endfor -%}{{ m.content + '<|im_end|>\n' }}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
"""ChatML, in which an answer of a tool is a user's message."""

ONSETS = ("b", "br", "d", "dr", "f", "g", "gl", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v")
NUCLEI = ("a", "e", "i", "o", "u", "ai", "or", "en", "il", "an")
ENDS = ("", "l", "n", "r", "s", "th", "m", "ck")


def _words() -> tuple[str, ...]:
    rng = random.Random("words of the archive")
    words: dict[str, None] = {}
    while len(words) < 2400:
        parts = (rng.choice(ONSETS) + rng.choice(NUCLEI) for _ in range(rng.choice((1, 2, 2))))
        words["".join(parts) + rng.choice(ENDS)] = None
    return tuple(words)


WORDS = _words()
PLACES = WORDS[:120]  # drawers and folders have few names, so that little practice is enough

Place = tuple[str, str, int]


def place(rng: random.Random) -> Place:
    return rng.choice(PLACES), f"{rng.choice(PLACES)} {rng.choice(PLACES)}", rng.randrange(100)


def named(at: Place) -> str:
    drawer, folder, page = at
    return f"drawer {drawer}, folder {folder}, page {page}"


def record(drawer: object, folder: object, page: object) -> tuple[str, Place]:
    """What a record says, and the next one's place."""
    rng = random.Random(f"{drawer}|{folder}|{page}")
    w = [rng.choice(WORDS) for _ in range(26)]
    after = place(rng)
    return (
        f"Record of {w[0]} {w[1]}, kept by {w[2]} since the year {rng.randrange(1200, 1900)}. "
        f"It tells of {', '.join(w[3:12])} and {w[12]}, how they came to {w[13]} {w[14]} with "
        f"{', '.join(w[15:22])} and {w[22]}, and what {w[23]} wrote of it to {w[24]} {w[25]}. "
        f"The next record is in {named(after)}."
    ), after


def first(task: int) -> Place:
    return place(random.Random(f"task {task}"))


def call(at: Place) -> str:
    """The message that opens a record."""
    drawer, folder, page = at
    arguments = {"drawer": drawer, "folder": folder, "page": page}
    return f"<tool_call>\n{json.dumps({'name': TOOL, 'arguments': arguments})}\n</tool_call>"


def called(message: str) -> dict[str, Any] | None:
    """The arguments of a message's call; None where it holds none that can be read."""
    found = CALL.search(message)
    if found is None:
        return None
    try:
        call = json.loads(found[1])
    except json.JSONDecodeError:
        return None
    if not isinstance(call, dict) or call.get("name") != TOOL:
        return None
    arguments = call.get("arguments")
    return arguments if isinstance(arguments, dict) else None


def answer(arguments: dict[str, Any]) -> str:
    """What the tool says, or its error as a library would hand it on."""
    if set(arguments) != {"drawer", "folder", "page"}:
        return str({"error": f"{TOOL} takes a drawer, a folder and a page"})
    return record(**arguments)[0]


def worth(arguments: dict[str, Any]) -> float:
    """What an answer is worth: a number of its own below 1, so that returns of a group differ."""
    return random.Random(f"worth of {sorted(arguments.items())}").random()


SCHEMA = {
    "type": "function",
    "function": {
        "name": TOOL,
        "description": "Open the record that lies at a place of the archive.",
        "parameters": {
            "type": "object",
            "properties": {
                "drawer": {"type": "string", "description": "The drawer, one word."},
                "folder": {"type": "string", "description": "The folder in it, two words."},
                "page": {"type": "integer", "description": "The page in it, a number below 100."},
            },
            "required": ["drawer", "folder", "page"],
        },
    },
}
RULES = (
    "You look after an archive of records. Every record tells something, and ends with the place "
    "of the record that goes on with it. When you are asked for a story, open its first record, "
    "read where the next one is, open that one, and so on until you are told to stop. Open one "
    "record at a time, and never one that nothing has pointed to.\n\n"
    "There is one tool, described in JSON:\n" + json.dumps(SCHEMA) + "\n"
    "To use it, answer with nothing but its name and its arguments as JSON between two marks, "
    'such as <tool_call>\n{"name": "open_record", "arguments": {"drawer": "...", "folder": "...", '
    '"page": 0}}\n</tool_call>, and wait for what it says.'
)


def question(task: int) -> str:
    return f"Tell me the story whose first record is in {named(first(task))}."


def texts(count: int) -> Iterator[str]:
    """What is said in the world: to train a tokenizer on."""
    yield RULES
    for task in range(count):
        at = first(task)
        yield question(task)
        for _ in range(3):
            yield call(at)
            text, at = record(*at)
            yield text


# -- as another library wants it: a function, and a class whose methods are tools


def open_record(drawer: str, folder: str, page: int) -> str:
    """Open the record that lies at a place of the archive.

    Args:
        drawer: The drawer, one word.
        folder: The folder in it, two words.
        page: The page in it, a number below 100.
    """
    return record(drawer, folder, page)[0]


class Archive:
    """One episode, for a library that calls a method as a tool and asks for the reward after."""

    def __init__(self) -> None:
        self.reward = 0.0

    def reset(self, **row: Any) -> None:
        self.reward = 0.0

    def get_reward(self) -> float:
        return self.reward

    def open_record(self, drawer: str, folder: str, page: int) -> str:
        """Open the record that lies at a place of the archive.

        Args:
            drawer: The drawer, one word.
            folder: The folder in it, two words.
            page: The page in it, a number below 100.
        """
        self.reward += worth({"drawer": drawer, "folder": folder, "page": page})
        return record(drawer, folder, page)[0]
