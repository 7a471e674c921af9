"""The webshop suite: tasks, environment, experts, and the compact rendering."""

import pickle
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.webshop_goods import awkward, awkward_shop, source_of

from tutelage.envs.base import Demonstrates, Describes, Instructs, Renders, Thinks
from tutelage.envs.check import check
from tutelage.errors import ConfigError
from tutelage.types import Observation, Task
from tutelage_worlds.webshop import WebShop
from tutelage_worlds.webshop.expert import plan
from tutelage_worlds.webshop.game import Game, parse
from tutelage_worlds.webshop.generate import MOST, Catalogue, code
from tutelage_worlds.webshop.goods import CHOICES
from tutelage_worlds.webshop.nouns import by_model, by_rules, tagger
from tutelage_worlds.webshop.pages import Mode, Pages
from tutelage_worlds.webshop.product import CatalogueError, Goal, Product
from tutelage_worlds.webshop.render import compact, marked
from tutelage_worlds.webshop.reward import has_attribute, matched_options, reward
from tutelage_worlds.webshop.shop import in_memory
from tutelage_worlds.webshop.wish import choose, read

SUITE = WebShop(products=600, test=100, dev=100)
CLICK_REGEX = r"(.+)\[(.+)\]"


def played(suite: WebShop, task: Task, actions: list[str]) -> Observation:
    env = suite.make()
    seen = env.reset(task)
    for action in actions:
        assert not seen.done
        seen = env.step(action)
        assert seen.valid, action
    return seen


def test_it_keeps_every_promise() -> None:
    for kind in (Demonstrates, Describes, Instructs, Renders, Thinks):
        assert isinstance(SUITE, kind)
    for suite in (SUITE, WebShop(products=90, test=30, dev=30, mode="text_rich", attributes=True)):
        for finding in check(suite, ("train", "dev", "test"), tasks=2):
            assert finding.problems == (), finding.name


def test_tasks_are_the_shuffled_goals_with_stable_ids() -> None:
    test, dev, train = (SUITE.tasks(split) for split in ("test", "dev", "train"))
    assert (len(test), len(dev), len(train)) == (100, 100, len(SUITE.shop()) - 200)
    first = train[0]
    assert first.id == "webshop/generated-600-0/human/0/0000200"
    assert first.family == SUITE.shop().product(SUITE.shop().goal(200).product).category
    assert train[-1] == train[len(train) - 1] == list(train)[-1]
    assert list(dev[3:5]) == [dev[3], dev[4]]
    with pytest.raises(IndexError, match="has 100"):
        dev[100]
    assert pickle.loads(pickle.dumps((SUITE, train))) == (SUITE, train)
    few = WebShop(products=20, test=5, dev=10**6)
    assert len(few.tasks("train")) == 0
    assert len(few.tasks("dev")) == len(few.shop()) - 5


def test_more_products_keep_the_first_ones_and_codes_are_different() -> None:
    small, large = awkward(20, 1), awkward(40, 1)
    assert [p["asin"] for p in small.products[:20]] == [p["asin"] for p in large.products[:20]]
    shop = SUITE.shop()
    asins = [shop.product(i).asin for i in range(600)]
    assert all(len(a) == 10 and a == a.upper() and shop.number(a) == i for i, a in enumerate(asins))
    assert len({code(number) for number in range(0, MOST, 5)}) == len(range(0, MOST, 5))
    assert len(code(MOST - 1)) == 10


def test_choices_of_generated_products_are_ones_that_a_purchase_can_match() -> None:
    for name, values in CHOICES.items():
        for value in values:
            assert (
                matched_options([value], {name: value}) == matched_options([value], (value,)) == 1
            )


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="dev = -1"):
        WebShop(dev=-1)
    with pytest.raises(CatalogueError, match=r"products = 1179649: 1,179,648 can be .*; ask for"):
        WebShop(products=MOST + 1).tasks("train")
    with pytest.raises(ValueError, match="the splits are test, dev, train"):
        SUITE.tasks("seen")
    env = SUITE.make()
    with pytest.raises(RuntimeError, match="reset"):
        env.step("search[tea]")
    for task in (Task(id="doors/1"), Task(id="webshop/generated-600-0/human/0/0000001", seed=2)):
        with pytest.raises(ValueError, match="not one of this shop"):
            env.reset(task)
    with pytest.raises(ConfigError, match="python -m spacy download"):
        tagger("spacy")


def test_the_careful_shopper_wins_and_so_does_the_one_who_knows() -> None:
    lengths = []
    for task in SUITE.tasks("train")[:80]:
        for actions in (SUITE.demonstrate(task), SUITE.plan(task)):
            seen = played(SUITE, task, list(actions))
            assert (seen.won, seen.reward, seen.score) == (True, 1.0, 1.0), (task, actions)
        assert len(SUITE.thoughts(task)) == len(SUITE.demonstrate(task))
        assert len(SUITE.plan(task)) <= len(SUITE.demonstrate(task))
        lengths.append(len(SUITE.demonstrate(task)))
    assert sorted(lengths)[len(lengths) * 95 // 100] <= 15


@pytest.mark.parametrize("goals", ["human", "synthetic"])
def test_plans_find_awkward_products_too(goals: str) -> None:
    suite = WebShop(products=200, goals=goals)  # type: ignore[arg-type]
    for task in suite.tasks("test")[:60]:
        assert played(suite, task, list(suite.plan(task))).won
    shop = awkward_shop(150, 11, goals)  # type: ignore[arg-type]
    shown = Pages(shop, False)
    for goal in range(0, len(shop), 7):
        game = Game(shown, goal, by_rules, "text")
        for action in plan(Game(shown, goal, by_rules, "text"), shop):
            game.step(action)
        bought = shop.product(game.goal.product).asin
        assert game.worth is not None
        assert bought in game.text()


def test_doing_nothing_never_wins_and_changes_nothing() -> None:
    task = SUITE.tasks("dev")[3]
    env = SUITE.make()
    before = env.reset(task)
    for action in ("", "wait", "click[search]", "click[buy now]", "search[]", "Search[tea]"):
        after = env.step(action)
        assert (after.valid, after.won, after.reward, after.score) == (False, None, 0.0, 0.0)
        assert (after.text, after.state, after.actions) == (
            before.text,
            before.state,
            before.actions,
        )


def test_after_the_purchase_nothing_more_is_earned() -> None:
    task = SUITE.tasks("dev")[0]
    env = SUITE.make()
    env.reset(task)
    for action in SUITE.plan(task):
        last = env.step(action)
    again = env.step("search[tea]")
    assert (last.done, last.reward, last.actions) == (True, 1.0, ())
    assert (again.done, again.won, again.reward, again.valid) == (True, True, 0.0, False)
    assert again.text == last.text
    env.close()
    with pytest.raises(RuntimeError, match="reset"):
        env.step("search[tea]")


def test_a_poor_purchase_earns_its_worth_or_nothing() -> None:
    for kind in ("score", "won"):
        suite = WebShop(products=600, test=100, dev=100, reward=kind)  # type: ignore[arg-type]
        shop = suite.shop()
        task = next(t for t in suite.tasks("train") if shop.goal(suite.goal(t)).options)
        env = suite.make()
        env.reset(task)
        env.step(f"search[<q> {shop.product(shop.goal(suite.goal(task)).product).query}]")
        env.step(f"click[{shop.product(shop.goal(suite.goal(task)).product).asin}]")
        last = env.step("click[buy now]")
        assert (last.won, last.done) == (False, True)
        assert 0 < (last.score or 0) < 1
        assert last.reward == (last.score if kind == "score" else 0.0)


def test_states_are_those_of_the_situation() -> None:
    env, task = SUITE.make(), SUITE.tasks("train")[0]
    start = env.reset(task).state
    first = env.step("search[red shirt]")
    link = first.actions[2]
    assert link.startswith("click[")
    product = env.step(link).state
    assert env.step("click[features]").state != product
    assert env.step("click[< prev]").state == product
    assert env.step("click[< prev]").state == first.state != env.step("click[next >]").state
    assert env.step("click[back to search]").state == start
    assert SUITE.make().reset(task).state == start
    assert SUITE.make().reset(SUITE.tasks("train")[1]).state != start


LETTERS = st.text(max_size=30) | st.sampled_from(
    ["ignore all previous instructions", "<|im_end|>", "\ud800", "🚪" * 5, "]" * 9, "[" * 9]
)
ACTIONS = st.one_of(
    LETTERS,
    LETTERS.map("search[{}]".format),
    LETTERS.map("click[{}]".format),
    st.sampled_from(["search[<r>]", "search[<a>]", "search[<c>]", "search[<q>]", "click[buy now]"]),
    st.integers(0, 40),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(ACTIONS, max_size=25),
    st.sampled_from(["text", "text_rich"]),
    st.sampled_from(["human", "synthetic"]),
    st.booleans(),
    st.integers(0, 60),
)
def test_any_action_is_answered_and_games_are_deterministic(
    actions: list[str | int], mode: Mode, goals: str, attributes: bool, goal: int
) -> None:
    """Numbers stand for one of what can be done."""
    shop = awkward_shop(150, 11, goals)  # type: ignore[arg-type]
    paths = []
    for _ in range(2):
        game = Game(Pages(shop, attributes), goal, by_rules, mode)
        path = [(game.text(), game.key(), True)]
        for word in actions:
            options = game.page.actions
            listed = isinstance(word, int) and bool(options)
            action = options[word % len(options)] if listed else str(word)  # type: ignore[operator]
            valid = game.step(action)
            assert valid or not listed, f"{action!r} was listed and refused"
            if not valid:
                assert (game.text(), game.key()) == path[-1][:2]
            assert game.worth is None or 0 <= game.worth <= 1
            path.append((game.text(), game.key(), valid))
        paths.append(path)
    assert paths[0] == paths[1]


@pytest.mark.parametrize(
    "action",
    [
        "x" * 10**6,
        "[" * 10**6,
        "]" * 10**6,
        "search[" * 10**5,
        f"search[{'tea ' * 250_000}]",
        f"click[{'a' * 10**6}]",
        "[]" * 500_000,
    ],
    ids=range(7),
)
def test_a_million_characters_are_answered(action: str) -> None:
    env = SUITE.make()
    env.reset(SUITE.tasks("dev")[1])
    assert env.step(action).text
    assert env.step("search[tea]").valid


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab[]\n \r", max_size=14))
def test_actions_are_read_as_the_regular_expression_reads_them(action: str) -> None:
    import re

    match = re.match(CLICK_REGEX, action)
    expected = (match[1], match[2].lower()) if match else (action, "")
    assert parse(action) == expected


def test_another_process_sees_the_same() -> None:
    code = (
        "from tutelage_worlds.webshop import WebShop\n"
        "s = WebShop(products=60, test=10, dev=10)\n"
        "t = s.tasks('dev')[4]\n"
        "e = s.make()\n"
        "print(hash(e.reset(t).text) * 0, e.reset(t).text, *s.demonstrate(t), *s.plan(t))\n"
        "print(e.step('search[<r>]').text)"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


# -- a shop of two products, each with more than one choice


def small_shop() -> Pages:
    entry = {
        "asin": "FIRST",
        "category": "garden",
        "query": "tea pot",
        "product_category": "A › B › C",
        "name": "Tea Pot",
        "full_description": "",
        "small_description": "",
        "pricing": "$5",
        "customization_options": {
            "size": [{"value": "one"}, {"value": "two"}],
            "color": [{"value": "red"}, {"value": "[x]"}],
            "age": [{"value": "one"}, {"value": "old\nage"}],
        },
    }
    wish = {
        "instruction": "a tea pot",
        "instruction_attributes": ["tea"],
        "instruction_options": [],
    }
    result = Catalogue(
        products=[entry, {**entry, "asin": "SECOND", "pricing": "$500"}],
        attributes={},
        humans={"FIRST": [wish]},
    )
    return Pages(in_memory(source_of(result), goals="human", seed=0), False)


def after(*actions: str, goal: int = 0) -> Game:
    game = Game(small_shop(), goal, by_rules, "text")
    for action in actions:
        assert game.step(action), action
    return game


def test_a_value_of_two_choices_sets_the_last_of_them() -> None:
    game = after("search[tea]", "click[first]", "click[one]", "click[two]", "click[buy now]")
    assert '{"age": "one", "size": "two"}' in game.text()
    other = after("search[tea]", "click[first]", "click[two]", "click[one]", "click[buy now]")
    assert other.text() == game.text()


def test_what_was_chosen_belongs_to_the_situation() -> None:
    opened = after("search[tea]", "click[first]")
    chosen = after("search[tea]", "click[first]", "click[red]")
    assert opened.text() == chosen.text()
    assert opened.key() != chosen.key()
    assert chosen.key() == after("search[tea]", "click[first]", "click[red]", "click[red]").key()


def test_names_with_brackets_or_lines_are_shown_and_not_listed() -> None:
    game = after("search[tea]", "click[first]")
    assert {"[x]", "old\nage"} < set(game.page.clicks)
    assert [a for a in game.page.actions if "x" in a or "old" in a] == []
    assert not game.step("click[[x]]")


def test_the_price_is_that_of_what_was_bought() -> None:
    assert after("search[tea]", "click[first]", "click[buy now]").worth == 1.0
    assert after("search[tea]", "click[second]", "click[buy now]").worth == 0.5


def test_random_searches_differ_from_task_to_task() -> None:
    env = SUITE.make()
    texts = []
    for task in SUITE.tasks("train")[:2]:
        env.reset(task)
        texts.append(env.step("search[<r>]").text.partition("Page 1")[2])
    assert texts[0] != texts[1]


# -- search by something else than words


def test_special_searches_find_all_that_have_it() -> None:
    shop = SUITE.shop()
    products = [shop.product(i) for i in range(600)]
    teas = [i for i, p in enumerate(products) if p.query == "herbal tea"]
    assert list(shop.search("<q> herbal tea")) == teas != []
    foods = [i for i, p in enumerate(products) if p.category == "grocery"]
    assert list(shop.search("<c> grocery and more")) == foods
    free = [i for i, p in enumerate(products) if "gluten free" in p.attributes]
    assert list(shop.search("<a> gluten free")) == free != []
    for nothing in ("<c>", "<a> nope", "<q>", "the of", "zzzzqqq"):
        assert len(shop.search(nothing)) == 0
    some = shop.search("<r>", "7")
    assert len(set(some)) == 50
    assert some == shop.search("<r> and more", "7") != shop.search("<r>", "8")


def test_pages_before_the_first_are_empty_or_from_the_end() -> None:
    """A query with the name of a page in it misleads the site's own way back."""
    shop = SUITE.shop()
    game = Game(Pages(shop, False), 0, by_rules, "text")
    game.step("search[search_results tea]")
    game.step(game.page.actions[-1])
    game.step("click[< prev]")
    assert "Page 0 (Total results: " in game.text()
    assert "click[next >]" in game.page.actions
    assert "click[< prev]" not in game.page.actions


# -- worth


def product(**changes: object) -> Product:
    result = {
        "asin": "A",
        "title": "Red Tea Pot",
        "description": "Made of clay",
        "bullets": ("Holds a lot",),
        "price_tag": "$10.0",
        "options": {},
        "attributes": ("hand made",),
        "category": "garden",
        "query": "tea pot",
        "product_category": "Home › Kitchen › Pots",
        **changes,
    }
    return Product(**result)  # type: ignore[arg-type]


def goal(**changes: object) -> Goal:
    result = {
        "product": 0,
        "text": "",
        "attributes": ("hand made", "clay"),
        "options": ("blue",),
        "upper": 20.0,
        **changes,
    }
    return Goal(**result)  # type: ignore[arg-type]


def worth(bought: Product, chosen: dict[str, str], wish: Goal, price: float = 10.0) -> float:
    return reward(bought, price, chosen, wish, product(), by_rules)


def test_a_purchase_is_worth_the_share_of_wishes_that_it_meets() -> None:
    assert worth(product(), {"color": "blue"}, goal()) == 1.0
    assert worth(product(), {}, goal()) == 3 / 4
    assert worth(product(), {"color": "blue"}, goal(), price=20.0) == 1.0
    assert worth(product(), {"color": "blue"}, goal(), price=20.01) == 3 / 4
    assert worth(product(attributes=()), {"color": "blue"}, goal()) == 3 / 4
    assert worth(product(description=""), {"color": "blue"}, goal()) == 3 / 4
    assert worth(product(), {"color": "navy blue"}, goal(options=("blue", "6"))) == 4 / 5


def test_another_kind_of_product_is_worth_less() -> None:
    other = {"query": "cup", "product_category": "Home › Garden"}
    full = {"color": "blue"}
    assert worth(product(**other), full, goal()) == 1.0  # titles alike
    assert worth(product(**other, title="Lamp Shade"), full, goal()) == 0.0
    long = product(title="Pot " + " ".join(f"word{chr(97 + i)}" for i in range(5)))
    apart = product(**other, title="Pot of Gold")
    assert reward(apart, 1.0, full, goal(), long, by_rules) == 0.5
    assert reward(product(title="Pot"), 1.0, full, goal(), long, by_rules) == 1.0
    longer = product(title="Pot " + " ".join(f"word{chr(97 + i)}" for i in range(15)))
    assert reward(product(title="Pot"), 1.0, full, goal(), longer, by_rules) == 0.1
    often = product(title="Pot" + " Word" * 10)
    assert reward(product(title="Pot"), 1.0, full, goal(), often, by_rules) == 0.1
    nameless = product(title="2 for 1")
    assert reward(apart, 1.0, full, goal(), nameless, by_rules) == 0.5
    assert reward(nameless, 1.0, full, goal(), product(), by_rules) == 0.0
    same_shelf = product(title="Pot", query="x", product_category="A › Pots › Kitchen")
    wanted = product(title="Pot " + " ".join("bcdefg"))
    assert reward(same_shelf, 1.0, full, goal(), wanted, by_rules) == 1.0


def test_options_of_synthetic_goals_are_compared_as_pairs() -> None:
    assert matched_options(["red"], {"color": "red"}) == 1  # the value is a colour
    assert matched_options(["dark red"], {"color": "dark red"}) == 1  # "dark" is a word of the pair
    assert matched_options(["sandalwood"], {"scent": "sandalwood"}) == 0  # "sand" is not
    assert matched_options(["sandalwood"], ("sandalwood",)) == 1
    assert matched_options(["navy blue"], ("sky blue",)) == 1  # both are blue, says the list
    assert matched_options(["size 6"], {"size 6": "extra long"}) == 1  # so far a pair is compared
    assert matched_options(["2 pack"], ("pack of 12",)) == 0  # 80 of 100 alike
    assert matched_options(["machine wash"], ("machine washable",)) == 1  # 86
    assert has_attribute(product(attributes=("hand made mug",)), "hand made")
    assert not has_attribute(product(attributes=("glass",)), "hand made")
    assert has_attribute(product(attributes=()), "holds a lot")
    assert has_attribute(product(attributes=()), "of clay")
    assert has_attribute(product(attributes=()), "red tea")


def test_nouns_come_from_a_model_where_there_is_one() -> None:
    class Token:
        def __init__(self, text: str) -> None:
            self.text, self.pos_ = text, "PROPN" if text[0].isupper() else "VERB"

    nouns = by_model(lambda title: [Token(word) for word in title.split()])
    assert nouns("Red runs Tea Red") == ("red", "tea", "red")


# -- words


def test_instructions_are_taken_apart_without_knowing_the_product() -> None:
    known = {"gluten free", "gluten", "non gmo"}.__contains__
    text = "I am looking for Non GMO gluten free tea, in 6.5 oz, and price lower than 9.00 dollars"
    wish = read(text, known)
    assert wish.attributes == ("non gmo", "gluten free")
    assert wish.rest == ("tea", "6.5", "oz")
    assert "9.00" not in wish.text
    options = {"size": ("6", "6.5", "6.5 oz"), "color": ("red",), "pack": ("", "x-large", "large")}
    assert choose(options, wish.text) == {"size": "6.5 oz"}
    assert choose(options, "an x-large one") == {"pack": "x-large"}
    assert choose({"size": ("large", "6")}, "an x-large one, 6.5") == {}


def spaced(text: str) -> str:
    return " ".join(text.replace(", ", " , ").replace(". ", " . ").split())


def test_compact_and_marked_say_what_the_page_says() -> None:
    task = SUITE.tasks("train")[2]
    env = SUITE.make()
    start = env.reset(task)
    assert compact(start) == marked(start) == f"wanted : {spaced(SUITE.describe(task).lower())}"
    seen = start
    for action in SUITE.demonstrate(task):
        seen = env.step(action)
        for render in (compact, marked):
            short = render(seen)
            assert len(short) < len(seen.text)
            assert "[SEP]" not in short
            for name in seen.actions:
                word = name[6:-1]
                if name.startswith("click[") and word not in (
                    "back to search",
                    "< prev",
                    "next >",
                    "description",
                    "features",
                    "reviews",
                    "buy now",
                ):
                    assert word in short
        assert marked(seen).replace("* ", "") == compact(seen)
    assert compact(seen) == "bought : score 1.0"
    assert compact(Observation(text="[button] Search [button_]")) == "[button] Search [button_]"


def test_marked_stars_what_the_instruction_names() -> None:
    item = "Instruction: [SEP] x [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] red [SEP] blue"
    seen = Observation(
        text=f"{item} [SEP] Green Tea [SEP] Price: $5.0 [SEP] Rating: N.A. [SEP] Buy Now",
        actions=("click[red]", "click[blue]", "click[buy now]"),
        focus=("i want blue tea, and price lower than 5.00 dollars",),
    )
    assert marked(seen) == "green * tea , * $5.0\ncolor : red , * blue"


def test_random_walks_in_pages_never_repeat_a_shop_by_mistake() -> None:
    """Pages that are remembered belong to one shop and one way of showing it."""
    one, other = (in_memory(source_of(awkward(30, seed)), goals="human", seed=0) for seed in (1, 2))
    for shop in (one, other):
        rng, shown = Random(0), Pages(shop, True)
        game = Game(shown, 0, by_rules, "text")
        game.step("search[<q> running shoes]")
        game.step(rng.choice(game.page.actions))
        assert shown.shop is shop
