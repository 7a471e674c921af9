"""Every kept input of every fuzz target, and a few new ones."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.fuzz import corpus, mutated
from fuzz.targets import TARGETS
from tutelage.envs.wire import pack_state, unpack_state

NEW = 30
"""New inputs of each target; `make fuzz` runs them by the hundred thousand."""


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_hold(name: str) -> None:
    known = corpus(name)
    assert known, f"corpus/{name} is empty"
    for data in known:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_new_inputs_hold(name: str) -> None:
    draw, known = random.Random(name), corpus(name)
    for _ in range(NEW):
        TARGETS[name](mutated(draw.choice(known), known, draw))


STATES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=8,
)


@given(STATES)
def test_a_state_is_the_same_key_on_the_other_side(state: object) -> None:
    import json

    again = unpack_state(json.loads(json.dumps(pack_state(state))))  # type: ignore[arg-type]
    assert again == state
    assert hash(again) == hash(state)
    assert type(again) is type(state)
