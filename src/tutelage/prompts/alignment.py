"""Two tokenizers' tokens of one turn, aligned at the byte offsets of its text.

The student's turn is the ids that were sampled, whatever they are; the teacher's is the text of
those ids in the teacher's own tokens. Where both have a boundary at the same byte, a chunk ends: the
text in it is the same for both, so the teacher's log-probabilities of its tokens add up to that of
the student's tokens. A chunk of one token each, which is the same text in both vocabularies, is the
same token.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from tutelage.errors import PolicyError
from tutelage.prompts.chat_template import THOUGHT, Chat
from tutelage.types import TopLogprobs

Ids = tuple[int, ...]
SPACES = b" \t\r\n"
"""Bytes that a tokenizer may add or drop at a boundary."""
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
PROBE = "You see 3 doors: a, b; c.\n<think>naïve — 日本</think><action>open(door='2')</action>"
"""A text that every tokenizer must give back from its tokens' own texts."""


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes as: a printable byte as itself, the
    others, in order, from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    letters = {chr(b): b for b in printable}
    return letters | {chr(0x100 + k): b for k, b in enumerate(others)}


class Piece(NamedTuple):
    """A token's own text. `special` tokens have none; `byte` is one that stands for a byte of a
    character that the vocabulary lacks."""

    data: bytes
    special: bool = False
    byte: bool = False


class Vocabulary:
    """The texts of a tokenizer's tokens, as bytes, by id.

    Raises PolicyError for a tokenizer whose tokens have none of their own.
    """

    def __init__(self, chat: Chat, *, name: str) -> None:
        self.chat = chat
        tokenizer = chat.tokenizer
        core = getattr(tokenizer, "backend_tokenizer", None)
        if core is None:
            raise PolicyError(
                f"the tokenizer of {name} is no fast one (tokenizer.json), so its tokens cannot be "
                "aligned with another tokenizer's; save it as one, or choose a model of the "
                "student's family"
            )
        self.byte_level = "ByteLevel" in _kinds(json.loads(core.to_str()).get("decoder"))
        added = {int(i): t for i, t in tokenizer.added_tokens_decoder.items()}
        names = tokenizer.convert_ids_to_tokens(list(range(chat.size)))
        self.names = [str(name) for name in names]
        self.pieces = [
            Piece(b"", special=True)
            if name is None or (i in added and added[i].special)
            else Piece(added[i].content.encode())
            if i in added
            else self._piece(str(name))
            for i, name in enumerate(names)
        ]
        ids = chat.reply(PROBE)[:-1]
        text = PROBE.removeprefix(THOUGHT) if chat.opens_thought else PROBE
        if not all(self.placed(ids, text.encode()).whole):
            raise PolicyError(
                f"the tokens of {name}'s tokenizer have no texts of their own that together are "
                "the text they encode, so they cannot be aligned with another tokenizer's; choose "
                "a model of the student's family"
            )

    def _piece(self, name: str) -> Piece:
        if self.byte_level:
            if all(letter in LETTERS for letter in name):
                return Piece(bytes(LETTERS[letter] for letter in name))
            return Piece(name.encode())
        if found := BYTE.fullmatch(name):
            return Piece(bytes([int(found[1], 16)]), byte=True)
        return Piece(name.replace("\u2581", " ").encode())

    def placed(self, ids: Sequence[int], text: bytes) -> "Placed":
        """Where in a text the tokens of it stand."""
        return placed([self.pieces[i].data for i in ids], text)


LETTERS = _byte_letters()


def _kinds(decoder: Any) -> set[str]:
    """The types of a decoder and of all it is made of."""
    if not isinstance(decoder, dict):
        return set()
    parts = decoder.get("decoders") or []
    return {str(decoder.get("type"))}.union(*(_kinds(part) for part in parts))


class Placed(NamedTuple):
    """Tokens in a text: n + 1 boundaries as byte offsets, None where there is no telling, and by
    token whether its text is all there."""

    at: list[int | None]
    whole: list[bool]


def placed(pieces: Sequence[bytes], text: bytes) -> Placed:
    """Where the pieces stand in a text that they make up but for spaces, which tokenizers add and
    drop. Where the two differ otherwise, what stands before and after the difference is placed.

    >>> placed([b" click", b" [", b" b1", b" ]"], b"click[b1]").at
    [0, 5, 6, 8, 9]
    >>> placed([b"a", b"?", b"b"], b"a\\xef\\xbf\\xbdb")
    Placed(at=[0, 1, 4, 5], whole=[True, False, True])
    """
    raw = b"".join(pieces)
    ends = [0, *accumulate(len(piece) for piece in pieces)]
    if raw == text:
        return Placed([*ends], [True] * len(pieces))
    before, complete = _matched(raw, text)
    if complete:
        return Placed([before[end] for end in ends], [True] * len(pieces))
    after, _ = _matched(raw[::-1], text[::-1])
    front = [before[end] if end < len(before) else None for end in ends]
    back = [
        len(text) - after[len(raw) - end] if len(raw) - end < len(after) else None for end in ends
    ]
    whole = [
        (front[k] is not None and front[k + 1] is not None)
        or (front[k] is None and back[k] is not None and back[k + 1] is not None)
        for k in range(len(pieces))
    ]
    at = [b if a is None else a for a, b in zip(front, back, strict=True)]
    return Placed(at, whole)


def _matched(raw: bytes, text: bytes) -> tuple[list[int], bool]:
    """The offset in `text` after each byte of `raw`, up to the first that is not there, and whether
    all of both is matched. Spaces that only one of them has are passed over."""
    at, j = [0], 0
    for i in range(len(raw)):
        while j < len(text) and raw[i] != text[j] and text[j] in SPACES and raw[i] not in SPACES:
            j += 1
        if j < len(text) and raw[i] == text[j]:
            j += 1
        elif raw[i] not in SPACES:
            return at, False
        at.append(j)
    if text[j:].strip(SPACES):
        return at, False
    return at, True


def common(one: Sequence[int | None], other: Sequence[int | None]) -> list[tuple[int, int]]:
    """Indices of the boundaries that two tokenizers have in common, in order.

    >>> common([0, 2, 5, 9], [0, 3, 5, 7, 9])
    [(0, 0), (2, 2), (3, 4)]
    """
    i = j = 0
    pairs = []
    while i < len(one) and j < len(other):
        a, b = one[i], other[j]
        if a is not None and a == b:
            pairs.append((i, j))
        # both move on from a common boundary, and from a smaller one its own side
        i += a is None or (b is not None and a <= b)
        j += b is None or (a is not None and b <= a)
    return pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One turn as another tokenizer reads it.

    ids     the teacher's tokens of it
    chunk   [n] by token of the student, the number of its chunk in the turn; -1 where it is in none
    of      [m] by token of the teacher, the number of its chunk; -1 likewise
    single  [n] by token of the student, which of the teacher's is the same token; -1 where none is
    """

    ids: Ids
    chunk: Ids
    of: Ids
    single: Ids


class Pair:
    """The tokenizers of a student and of a teacher.

    same  [V] by id of the student, the id of the teacher that is the same token; -1 where none is

    Raises PolicyError where the tokens of one of them have no texts.
    """

    def __init__(self, student: Chat, teacher: Chat, *, name: str) -> None:
        self.student, self.teacher = student, teacher
        self.ours = Vocabulary(student, name="the student")
        self.others = Vocabulary(teacher, name=name)
        self.same = self._same()
        self.readings: dict[Ids, Reading] = {}

    def _same(self) -> list[int]:
        """One to one: by name where both vocabularies write names alike, then by text, tokens for
        single bytes last."""
        ours, others = self.ours, self.others
        result, free = [-1] * len(ours.pieces), [True] * len(others.pieces)

        def pair(keys: list[object], others_keys: list[object]) -> None:
            by_key: dict[object, int] = {}
            for j, key in enumerate(others_keys):
                if key is not None and free[j]:
                    by_key.setdefault(key, j)
            for i, key in enumerate(keys):
                if key is not None and result[i] < 0 and key in by_key and free[by_key[key]]:
                    result[i] = by_key[key]
                    free[by_key[key]] = False

        if ours.byte_level == others.byte_level:
            pair(
                [(n, p) for n, p in zip(ours.names, ours.pieces, strict=True)],
                [(n, p) for n, p in zip(others.names, others.pieces, strict=True)],
            )
        if result[self.student.end] < 0 and free[self.teacher.end]:
            result[self.student.end] = self.teacher.end
            free[self.teacher.end] = False
        for bytes_too in (False, True):
            pair(_texts(ours, bytes_too=bytes_too), _texts(others, bytes_too=bytes_too))
        return result

    @cached_property
    def alike(self) -> bool:
        """Whether every id is the same token for both."""
        return self.same == list(range(len(self.others.pieces)))

    def read(self, tokens: Ids) -> Reading:
        """A turn that the student's tokens say, as the teacher would write its text. Where both
        tokenizers cut the text alike, the teacher reads the very tokens that were sampled."""
        if (known := self.readings.get(tokens)) is None:
            known = self.align(tokens, self._ids(tokens))
            self.readings[tokens] = known
            if len(self.readings) > MOST_READINGS:
                del self.readings[next(iter(self.readings))]
        return known

    def _ids(self, tokens: Ids) -> Ids:
        text = self.student.text(tokens)
        mapped = tuple(self.same[i] for i in tokens)
        if -1 not in mapped and self._cut_alike(text):
            return mapped
        ids = self.teacher.reply(text)
        return ids if tokens[-1:] == (self.student.end,) else ids[:-1]

    def write(self, ids: Ids, *, ended: bool) -> Ids:
        """The student's tokens for a turn that the teacher wrote: the very ones where both
        tokenizers cut its text alike."""
        text = self.teacher.text(ids)
        mapped = tuple(self._back.get(i, -1) for i in ids)
        if -1 not in mapped and self._cut_alike(text):
            return mapped
        tokens = self.student.reply(text)
        return tokens if ended else tokens[:-1]

    def _cut_alike(self, text: str) -> bool:
        ours, others = self.student.reply(text), self.teacher.reply(text)
        return tuple(self.same[i] for i in ours) == others

    @cached_property
    def _back(self) -> dict[int, int]:
        return {other: i for i, other in enumerate(self.same) if other >= 0}

    def boundaries(self, tokens: Ids, ids: Ids) -> tuple[Placed, Placed]:
        """Where the student's and the teacher's tokens of one turn stand in its text."""
        text = self.student.text(tokens)
        return (
            _in_text(self.ours, tokens, text),
            _in_text(self.others, ids, text),
        )

    def align(self, tokens: Ids, ids: Ids) -> Reading:
        """The student's and the teacher's tokens of one turn, in chunks."""
        if len(tokens) == len(ids) and all(
            self.same[a] == b for a, b in zip(tokens, ids, strict=True)
        ):
            every = tuple(range(len(tokens)))
            return Reading(ids=ids, chunk=every, of=every, single=every)
        ours, others = self.boundaries(tokens, ids)
        chunk, of, single = [-1] * len(tokens), [-1] * len(ids), [-1] * len(tokens)
        number = 0
        for (i, j), (k, m) in pairwise(common(ours.at, others.at)):
            if not (k > i and m > j and all(ours.whole[i:k]) and all(others.whole[j:m])):
                continue
            chunk[i:k], of[j:m] = [number] * (k - i), [number] * (m - j)
            if k - i == m - j == 1 and self.same[tokens[i]] == ids[j]:
                single[i] = j
            number += 1
        if tokens[-1:] == (self.student.end,) and ids[-1:] == (self.teacher.end,):
            chunk[-1] = of[-1] = number
            if self.same[tokens[-1]] == ids[-1]:
                single[-1] = len(ids) - 1
        return Reading(ids=ids, chunk=tuple(chunk), of=tuple(of), single=tuple(single))


class Likely(NamedTuple):
    """A token of a text that a chat server wrote, as bytes, and the log-probabilities of the likely
    tokens there, itself among them; none where it tells of no others."""

    data: bytes
    top: tuple[tuple[bytes, float], ...]


def _spaced(text: bytes, spaces: int) -> bytes:
    """A text with so many spaces more before it, or fewer; nothing where it has not as many.

    >>> _spaced(b"a", 1), _spaced(b" a", -1), _spaced(b"a", -1)
    (b' a', b'a', b'')
    """
    if spaces >= 0:
        return b" " * spaces + text
    return text[-spaces:] if text.startswith(b" " * -spaces) else b""


class TextPair(Pair):
    """A student, and a teacher that is asked in messages, whose tokens have no ids: turns are texts
    for it, and there are no chunks."""

    def __init__(self, student: Chat, teacher: Chat) -> None:
        self.student, self.teacher = student, teacher
        self.same = [-1] * student.size
        self.readings: dict[Ids, Reading] = {}

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.student, name="the student")

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        """The student's token of some bytes; one that stands for a byte of a character last."""
        found: dict[bytes, int] = {}
        for bytes_too in (False, True):
            for i, data in enumerate(_texts(self._vocabulary, bytes_too=bytes_too)):
                if isinstance(data, bytes) and i not in self.student.ends:
                    found.setdefault(data, i)
        return found

    def top_logprobs(self, tokens: Ids, text: str, likely: Sequence[Likely]) -> TopLogprobs:
        """What a teacher told of its tokens of a text, for the student's tokens of it. Where one of
        each is the same bytes at the same place, there are the student's tokens that are all of the
        bytes of a likely one; nothing elsewhere. Spaces that one of them adds before a word count
        for the likely ones too."""
        ours = _in_text(self._vocabulary, tokens, text)
        others = placed([each.data for each in likely], text.encode())
        pieces = self._vocabulary.pieces
        rows: list[tuple[tuple[int, float], ...]] = [()] * len(tokens)
        for (i, j), (k, m) in pairwise(common(ours.at, others.at)):
            single = k - i == m - j == 1 and ours.whole[i] and others.whole[j]
            data, other = pieces[tokens[i]].data, likely[j].data
            if single and data.lstrip(b" ") == other.lstrip(b" "):
                own = {**self._by_bytes, data: tokens[i]}
                spaces = len(data) - len(other)
                named = ((_spaced(name, spaces), x) for name, x in likely[j].top)
                rows[i] = tuple((own[name], x) for name, x in named if name and name in own)
        return tuple(rows) if any(rows) else ()

    def _cut_alike(self, text: str) -> bool:
        return False

    def boundaries(self, tokens: Ids, ids: Ids) -> tuple[Placed, Placed]:
        return Placed([None], []), Placed([None], [])

    def align(self, tokens: Ids, ids: Ids) -> Reading:
        none = (-1,) * len(tokens)
        return Reading(ids=ids, chunk=none, of=(-1,) * len(ids), single=none)


MOST_READINGS = 1 << 14
"""Turns whose readings are kept."""


def _texts(of: Vocabulary, *, bytes_too: bool) -> list[object]:
    """Of each token its text as bytes; None for those without, and for a character's bytes."""
    return [p.data if p.data and (bytes_too or not p.byte) else None for p in of.pieces]


def _in_text(of: Vocabulary, ids: Ids, text: str) -> Placed:
    """Where a turn's tokens stand in its text, which begins with the thought that some prompts have
    opened already. Its end-of-turn token has no place."""
    body = ids[:-1] if ids and ids[-1] in of.chat.ends else ids
    skip = len(THOUGHT) if of.chat.opens_thought and text.startswith(THOUGHT) else 0
    at, whole = of.placed(body, text[skip:].encode())
    clean = [w and not of.pieces[i].special for w, i in zip(whole, body, strict=True)]
    return Placed([None if x is None else x + skip for x in at], clean)
