"""Sessions in which doors are played by tables of known distributions."""

from collections.abc import Sequence
from dataclasses import replace

from support.fake_policy import Table, chat
from tutelage.envs.base import Suite
from tutelage.envs.pool import LocalPool
from tutelage.objective import Algorithm, View
from tutelage.policies.base import Actor, Completion, Request
from tutelage.prompts.context import Context
from tutelage.rollout.session import Limits, Session
from tutelage.schedules import constant

TRANSCRIPT = Context(instructions="Answer each letter with its digit.")
WINDOW = replace(TRANSCRIPT, kind="window", window=1)
ALONE = Algorithm(terms=())


def session(
    suite: Suite,
    *,
    context: Context = TRANSCRIPT,
    policies: dict[str, Actor] | None = None,
    **limits: object,
) -> Session:
    return Session(
        suite=suite,
        pool=LocalPool(suite),
        policies=policies or {"self": Table(knows=1.0)},
        context=context,
        limits=Limits(**{"max_turns": 9, "max_new_tokens": 12, **limits}),  # type: ignore[arg-type]
    )


def mixed(chance: float, *, hint: str = "") -> Algorithm:
    return Algorithm(
        terms=(),
        views={"teacher": View(policy="teacher", hint=hint)},
        actors={"teacher": constant(chance)},
    )


def pair(**more: object) -> dict[str, Actor]:
    return {"self": Table(knows=0.5), "teacher": Table(knows=3.0, **more)}  # type: ignore[arg-type]


class Says:
    """An actor that writes one text after the other, whatever it is shown."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.chat, self.context_length = chat(), 1_000_000
        self.texts, self.asked = list(texts), list[Request]()

    def refresh(self) -> None: ...

    def release(self, key: str) -> None: ...

    def submit(self, request: Request) -> None:
        self.asked.append(request)

    def poll(self) -> list[Completion]:
        asked, self.asked = self.asked, []
        results = []
        for request in asked:
            ids = self.chat.reply(self.texts.pop(0))
            logps = (0.0,) * len(ids)
            results.append(Completion(key=request.key, tokens=ids, logps=logps, ended=True))
        return results
