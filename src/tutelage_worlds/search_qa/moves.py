"""Parse an agent's actions as Search-R1 or verl-agent does.

search_r1   Search-R1 (arXiv:2503.09516, `generation.py`)
verl_agent  verl-agent and those built on it (arXiv:2505.10978, arXiv:2605.15155: `projection.py`
            and SkyRL's `SearchEnv`)

Blocks are found by looking for tags one after the other, which is what the regular expressions of
the originals find, in time linear in the length of whatever a model wrote.
"""

from typing import Final, Literal, NamedTuple

Protocol = Literal["search_r1", "verl_agent"]
Kind = Literal["search", "answer", ""]
SEARCH, ANSWER = "search", "answer"


class Move(NamedTuple):
    """A query or an answer, or neither.

    ends      whether the episode is over
    valid     whether the turn was one that the protocol asks for
    flawless  whether it held nothing else before the end of its block
    """

    kind: Kind
    content: str
    ends: bool
    valid: bool
    flawless: bool = False


def write(kind: Literal["search", "answer"], content: str) -> str:
    """An action that both protocols read.

    >>> write("search", "river of Paris")
    '<search> river of Paris </search>'
    """
    return f"<{kind}> {content} </{kind}>"


def read(action: str, protocol: Protocol) -> Move:
    """An action under a protocol.

    >>> read("I ask <search>a</search><answer>b</answer>", "search_r1")[:4]
    ('search', 'a', False, True)
    >>> read("I ask <search>a</search><answer>b</answer>", "verl_agent")[:4]
    ('search', 'a', False, False)
    """
    return _search_r1(action) if protocol == "search_r1" else _verl_agent(action)


def _search_r1(action: str) -> Move:
    """`<(search|answer)>(.*?)</\\1>`, the first; of answers, the last block counts."""
    text = _cut(action)
    search, answer = _first(text, SEARCH), _first(text, ANSWER)
    flawless = _flawless(text)
    if search is not None and (answer is None or search[0] < answer[0]):
        return Move("search", search[1].strip(), ends=False, valid=True, flawless=flawless)
    if answer is not None:
        content = (_last(text, ANSWER) or "").strip()
        return Move("answer", content, ends=True, valid=True, flawless=flawless)
    return Move("", "", ends=False, valid=False)


def _verl_agent(action: str) -> Move:
    """The first search in any case of letters, else the first answer; both or more than one of a
    kind count as invalid and are done all the same. An answer within a query is an answer."""
    text = _cut(action)
    folded = _folded(action)
    opened = folded.count("<search>"), folded.count("<answer>")
    valid = not (opened[0] and opened[1]) and max(opened) <= 1
    search = _first(text, SEARCH, fold=True)
    found = search if search is not None else _first(text, ANSWER, fold=True)
    if found is None:
        return Move("", "", ends=False, valid=False)
    kind = SEARCH if search is not None else ANSWER
    content = found[1].strip()
    block = f"<{kind}>{content}</{kind}>"
    if "<answer>" in block and "</answer>" in block:
        last = _last(block, ANSWER)
        # an answer's tags the wrong way round end the episode without an answer
        move: Kind = "" if last is None else "answer"
        return Move(move, (last or "").strip(), True, valid, _flawless(text))
    return Move("search", content, ends=False, valid=valid, flawless=_flawless(text))


def _cut(action: str) -> str:
    """Up to the first end of a search, or else of an answer."""
    for tag in ("</search>", "</answer>"):
        at = action.find(tag)
        if at >= 0:
            return action[: at + len(tag)]
    return action


def _folded(text: str) -> str:
    """ASCII letters in lower case: a string of the same length, in which tags are found whatever
    their case; and `\u017f`, which regular expressions take for an s."""
    return text.translate(_FOLD)


_FOLD: Final = {code: chr(code + 32) for code in range(65, 91)} | {0x17F: "s"}


def _first(text: str, tag: str, *, fold: bool = False) -> tuple[int, str] | None:
    """Where `<tag>(.*?)</tag>` is first found, and what is in it."""
    where = _folded(text) if fold else text
    start = where.find(f"<{tag}>")
    inside = start + len(tag) + 2
    end = where.find(f"</{tag}>", inside) if start >= 0 else -1
    return None if end < 0 else (start, text[inside:end])


def _last(text: str, tag: str) -> str | None:
    """What is in the last of the blocks that lie one after the other."""
    found, at = None, 0
    opening, closing = f"<{tag}>", f"</{tag}>"
    while (start := text.find(opening, at)) >= 0:
        inside = start + len(opening)
        end = text.find(closing, inside)
        if end < 0:
            break
        found, at = text[inside:end], end + len(closing)
    return found


def _flawless(action: str) -> bool:
    """Whether an action is one block and nothing else: no words around it, no tag inside."""
    text = action.strip()
    for tag in (SEARCH, ANSWER):
        inside = text.removeprefix(f"<{tag}>").removesuffix(f"</{tag}>")
        if len(inside) == len(text) - 2 * len(tag) - 5:
            return not any(f"<{mark}{name}>" in inside for mark in ("", "/") for name in NAMES)
    return False


NAMES: Final = ("think", "search", "information", "answer")
"""The tags of Search-R1's protocol."""
