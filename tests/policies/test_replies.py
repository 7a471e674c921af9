"""A policy that plays a customer: the prompt it is given, and what it must not do besides."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

import tutelage
from tutelage.errors import PolicyError
from tutelage.policies.base import Actor, Completion, Request
from tutelage.policies.chat_replies import replies
from tutelage.types import Message

TEACHER = Path(tutelage.__file__).parent / "assets" / "household-teacher"
TALK = (
    Message("system", "s"),
    Message("user", "a"),
    Message("assistant", "b"),
    Message("user", "c"),
)


class Letters:
    """A chat whose ids are letters."""

    def open(self, system: str, user: str) -> tuple[Any, ...]:
        return ("<", *system, "|", *user, ">")

    def follow(self, user: str, *, ended: bool) -> tuple[Any, ...]:
        assert ended
        return ("|", *user, ">")

    def reply(self, text: str) -> tuple[Any, ...]:
        return (*text, ".")

    def text(self, tokens: tuple[Any, ...]) -> str:
        return "".join(tokens)


@dataclass
class Fake:
    context_length: int = 20
    chat: Letters = field(default_factory=Letters)
    asked: list[Request] = field(default_factory=list)
    waiting: int = 0
    released: list[str] = field(default_factory=list)
    foreign: bool = False

    def submit(self, request: Request) -> None:
        self.asked.append(request)
        self.waiting = 3

    def poll(self) -> list[Completion]:
        self.waiting -= 1
        if self.waiting:
            return []
        keys = [self.asked[-1].key] + ["another"] * self.foreign
        letters = cast(tuple[int, ...], ("h", "i"))
        return [Completion(key=k, tokens=letters, logps=(0.0, 0.0), ended=True) for k in keys]

    def release(self, key: str) -> None:
        self.released.append(key)


def answers(fake: Fake, **settings: Any) -> Any:
    return replies(cast(Actor, fake), **settings)


def test_the_whole_conversation_is_its_prompt() -> None:
    fake = Fake()
    reply = answers(fake, tokens=5, temperature=0.5, seed=3)
    assert reply(TALK) == "hi"
    assert "".join(map(str, fake.asked[0].prompt)) == "<s|a>b.|c>"
    assert (fake.asked[0].max_new, fake.asked[0].temperature, fake.asked[0].seed) == (5, 0.5, 3)
    assert reply(TALK[:2]) == "hi"
    assert "".join(map(str, fake.asked[1].prompt)) == "<s|a>"
    assert fake.released == [request.key for request in fake.asked]
    assert len(set(fake.released)) == 2


def test_a_conversation_that_no_longer_fits_is_refused() -> None:
    assert answers(Fake(context_length=15), tokens=5)(TALK) == "hi"
    with pytest.raises(PolicyError, match="leaves no room for 5 more in the customer's 14"):
        answers(Fake(context_length=14), tokens=5)(TALK)


def test_it_plays_no_other_part() -> None:
    with pytest.raises(PolicyError, match="also samples other turns"):
        answers(Fake(foreign=True), tokens=5)(TALK)


@pytest.mark.skipif(not TEACHER.is_dir(), reason=f"there is no {TEACHER}")
def test_a_model_of_this_project_plays_a_customer() -> None:
    from tutelage_worlds.tau_bench import TauBench

    folder = str(TEACHER)
    suite = TauBench(size="small", user="policy", user_options={"model": folder, "tokens": 4})
    env, again = suite.make(), suite.make()
    task = suite.tasks("train")[0]
    first = env.reset(task)
    assert first.text
    assert first == again.reset(task)
    assert env.step("Hello").text == again.step("Hello").text
