"""The shop beside the original: walks that WebShop itself was led through on our awkward products,
with Anserini's search and thefuzz 0.19, were written down as digests."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support.webshop_goods import awkward_shop

from tutelage_worlds.webshop.analysis import terms
from tutelage_worlds.webshop.game import Game
from tutelage_worlds.webshop.nouns import by_rules
from tutelage_worlds.webshop.pages import Pages
from tutelage_worlds.webshop.reward import token_set_ratio
from tutelage_worlds.webshop.shop import Shop

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "webshop_recorded.json").read_text(encoding="utf-8")
)


def shop_of(part: dict[str, Any]) -> Shop:
    return awkward_shop(RECORDED["products"], RECORDED["seed"], part["goals"])


def name_of(part: dict[str, Any]) -> str:
    return f"{part['goals']}-{part['mode']}-{'attributes' if part['attributes'] else 'plain'}"


@pytest.mark.parametrize("part", RECORDED["parts"], ids=name_of)
def test_every_page_click_and_reward_is_that_of_the_original(part: dict[str, Any]) -> None:
    shown = Pages(shop_of(part), part["attributes"])
    for walk in part["walks"]:
        game = Game(shown, walk["goal"], by_rules, part["mode"])
        digest = hashlib.sha256()

        def note(game: Game, digest: Any = digest) -> None:
            seen = [game.text(), list(game.page.clicks), game.page.search_bar]
            ended = game.worth is not None
            digest.update(json.dumps([*seen, game.worth or 0.0, ended]).encode())

        note(game)
        for action in walk["actions"]:
            game.step(action)
            note(game)
        assert (game.worth or 0.0) == walk["reward"]
        assert digest.hexdigest() == walk["digest"]


@pytest.mark.parametrize("part", RECORDED["parts"][::4], ids=name_of)
def test_goals_their_limits_and_their_order_are_those_of_the_original(part: dict[str, Any]) -> None:
    shop = shop_of(part)
    goals = [shop.goal(i) for i in range(len(shop))]
    texts = [
        [
            goal.text,
            goal.upper,
            shop.product(goal.product).asin,
            list(goal.attributes),
            list(goal.options) if isinstance(goal.options, tuple) else dict(goal.options),
        ]
        for goal in goals
    ]
    assert hashlib.sha256(json.dumps(texts).encode()).hexdigest() == part["instructions"]


def test_terms_are_those_of_lucene() -> None:
    for text, expected in RECORDED["terms"]:
        assert terms(text.lower()) == expected, text
    assert terms("snowing boxing religion adoption") == ["snow", "box", "religion", "adopt"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mark", ["", "\u0301"])
def test_a_long_line_is_no_word(mark: str) -> None:
    """A model that repeats itself writes such queries."""
    line = f"_{mark}" * 1_000_000
    assert terms(line) == []
    assert terms(f"{line} red") == ["red"]
    short = f"_{mark}" * 3
    assert terms(f"{short}a {short} b_") == [f"{short}a", "b_"]


@pytest.mark.timeout(60)
def test_a_long_line_of_marks_between_underscores_is_a_word_for_each() -> None:
    """The marks of scripts without blanks are words by themselves, letter or not."""
    mark, letter = "\u0e31", "\u0e01"
    line = f"_{mark}" * 300_000
    assert terms(line) == [mark] * 300_000
    assert terms(f"_{mark}_{mark}{letter}_{mark}a") == [mark, mark + letter, f"_{mark}a"]
    assert terms(f"_{mark}_{mark}a_{mark}_{mark}") == [f"_{mark}_{mark}a_{mark}_{mark}"]
    assert terms(f"_\u0301{letter}_") == [letter]


def test_likeness_is_that_of_thefuzz() -> None:
    for one, other, expected in RECORDED["alike"]:
        assert token_set_ratio(one, other) == expected, (one, other)
