"""Generated games and the two experts: balanced, solvable, stable and well split."""

import random
import subprocess
import sys
from collections import Counter, defaultdict, deque
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.household_scenes import CABINET_1, EGG, FRIDGE, kitchen

from tutelage_worlds.household import Game, Scene, explore, generate, plan
from tutelage_worlds.household.expert import UnsolvableError
from tutelage_worlds.household.generate import (
    COPIES,
    FAMILIES,
    SIZES,
    SPLITS,
    is_unseen,
    layout_name,
    pair_name,
)
from tutelage_worlds.household.scene import Family, Goal, Thing
from tutelage_worlds.household.tables import ACCEPTS, FULL, LAMP, LIMITS, OPENABLE, SMALL, THINGS
from tutelage_worlds.household.wording import NOTHING

SCENES = [(split, size) for split in SPLITS for size in SIZES]
ROOT = Path(__file__).parents[2]

STATIONS = {Family.CLEAN: "SinkBasin", Family.HEAT: "Microwave", Family.COOL: "Fridge"}
scenes = st.builds(
    generate, st.sampled_from(SPLITS), st.integers(0, 10**9), st.sampled_from(list(SIZES))
)


def room_of(scene: Scene) -> str:
    """The room that has all the furniture and can have all the things."""
    kinds = {r.kind for r in scene.receptacles}
    things = {t.kind for t in scene.things}
    fits = [
        room
        for room, furniture in FULL.items()
        if kinds <= furniture.keys() and all(room in THINGS[thing].rooms for thing in things)
    ]
    assert fits
    return fits[0]


def layout(scene: Scene) -> str:
    return layout_name("", Counter(r.kind for r in scene.receptacles))


def pair(scene: Scene) -> str:
    return pair_name(scene.goal.thing, scene.goal.receptacle or scene.goal.toggle)


def walked(scene: Scene, commands: list[str]) -> Game:
    """The game after the commands: each did something, none but the last won."""
    game = Game(scene)
    for command in commands:
        assert not game.won
        assert game.step(command) != NOTHING
    return game


@pytest.mark.parametrize(("split", "size"), SCENES)
def test_both_experts_win_every_game_and_the_plan_is_never_longer(split: str, size: str) -> None:
    lengths = defaultdict(list)
    for seed in range(360):
        scene = generate(split, seed, size)
        found, known = explore(scene, seed), plan(scene)
        assert walked(scene, found).won
        assert walked(scene, known).won
        assert len(known) <= len(found)
        lengths[scene.goal.family].append((len(found), len(known)))
    for pairs in lengths.values():
        mean, best = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        assert best < mean < 3 * best  # a searcher pays for not knowing, within reason


@pytest.mark.parametrize(("split", "size"), SCENES)
def test_generated_scenes_keep_to_the_tables(split: str, size: str) -> None:
    least_furniture, most_furniture, least_things, most_things = LIMITS[size]
    for seed in range(240):
        scene = generate(split, seed, size)
        room_of(scene)
        assert least_furniture <= len(scene.receptacles) <= most_furniture
        assert least_things <= len(scene.things) <= most_things
        places = {r.id: r for r in scene.receptacles}
        assert len(places) == len(scene.receptacles)
        assert len({t.id for t in scene.things} | places.keys()) == len(places) + len(scene.things)
        assert all(r.openable == (r.kind in OPENABLE) and not r.open for r in scene.receptacles)
        assert scene.start not in {r.location for r in scene.receptacles}
        for thing in scene.things:
            (inside,) = thing.inside
            assert thing.at == (places[inside].location,)
            kind = THINGS[thing.kind]
            assert places[inside].kind in (*kind.found, *kind.fits)
            assert thing.traits == kind.traits
        group_size = Counter(t.kind for t in scene.things)
        assert max(group_size.values()) <= COPIES
        assert group_size[LAMP] <= 1
        assert scene.accepts <= ACCEPTS
        here = {r.kind for r in scene.receptacles}, {t.kind for t in scene.things}
        assert scene.accepts == {(r, t) for r, t in ACCEPTS if r in here[0] and t in here[1]}


@pytest.mark.parametrize(("split", "size"), SCENES)
def test_families_are_balanced_and_goals_are_not_yet_met(split: str, size: str) -> None:
    results = [generate(split, seed, size) for seed in range(120)]
    counts = Counter(scene.goal.family for scene in results)
    assert counts == dict.fromkeys(FAMILIES, 20)
    for scene in results:
        goal = scene.goal
        where = {r.id: r.kind for r in scene.receptacles}
        wanted = [t for t in scene.things if t.kind == goal.thing]
        assert len(wanted) >= (2 if goal.family is Family.TWO else 1)
        assert all(where[t.inside[0]] != goal.receptacle for t in wanted)
        assert goal.receptacle in {*where.values(), ""}
        assert goal.receptacle != STATIONS.get(goal.family)
        assert (goal.receptacle == "") == (goal.family is Family.LIGHT) == (goal.toggle != "")
        assert not goal.sliced
        assert goal.thing.lower() in scene.task.split()
        assert (goal.receptacle or goal.toggle).lower() in scene.task.split()


def test_every_room_every_sentence_and_shared_places_occur() -> None:
    results = [generate("train", seed, "full") for seed in range(300)]
    assert {room_of(scene) for scene in results} == set("KLBW")
    starts = Counter(" ".join(scene.task.split()[:2]) for scene in results)
    assert {"put a", "put some", "clean some", "heat some", "cool some", "put two", "find two"} <= (
        starts.keys()
    )
    shared = [s for s in results if len({r.location for r in s.receptacles}) < len(s.receptacles)]
    assert 150 < len(shared) < 300


@pytest.mark.parametrize("size", SIZES)
def test_unseen_layouts_and_pairs_never_occur_in_train_or_seen(size: str) -> None:
    unseen = [generate("unseen", seed, size) for seed in range(1500)]
    others = [generate(split, seed, size) for split in ("train", "seen") for seed in range(1500)]
    assert {pair(s) for s in unseen}.isdisjoint(pair(s) for s in others)
    assert {layout(s) for s in unseen}.isdisjoint(layout(s) for s in others)
    assert all(is_unseen(pair(s)) for s in unseen)
    assert len({pair(s) for s in unseen}) > 50
    assert len({layout(s) for s in unseen}) > 100
    for family in FAMILIES:
        assert len({pair(s) for s in unseen if s.goal.family is family}) > 5


def test_seen_games_are_new_games_from_the_distribution_of_train() -> None:
    train = [generate("train", seed, "small") for seed in range(1500)]
    seen = [generate("seen", seed, "small") for seed in range(1500)]
    assert set(train).isdisjoint(seen)
    assert len(set(train)) == len(train)
    common = {pair(s) for s in train} & {pair(s) for s in seen}
    assert len(common) > 0.9 * len({pair(s) for s in seen})


FINGERPRINT = """
import hashlib
from tutelage_worlds.household import explore, generate, plan
from tutelage_worlds.household.problem import dump
digest = hashlib.sha256()
for size in ("small", "full"):
    for split in ("train", "seen", "unseen"):
        for seed in (0, 1, 2, 3, 4, 5, 1234567, 2 ** 40):
            scene = generate(split, seed, size)
            said = (dump(scene), scene.task, explore(scene, seed), plan(scene))
            digest.update(repr(said).encode())
print(digest.hexdigest())
"""
# Games have names for ever: a change of this number breaks every recorded task id.
FOR_EVER = "5daf464483cae604b9479f9addfaf969b83eaa99772887017b74bc2bc99d05ec"


def _fingerprint(python: str, hash_seed: str) -> str:
    done = subprocess.run(
        [python, "-c", FINGERPRINT],
        env={"PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_games_are_the_same_in_every_process(hash_seed: str) -> None:
    assert _fingerprint(sys.executable, hash_seed) == FOR_EVER


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_games_are_the_same_in_every_version_of_python(version: str) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"Python {version} is not installed under ~/.pyenv/versions")
    assert _fingerprint(str(found[-1]), "7") == FOR_EVER


def test_only_the_standard_library_is_needed() -> None:
    code = (
        "import sys, tutelage_worlds.household\n"
        "heavy = {'torch', 'numpy', 'transformers', 'pydantic', 'rich'} & sys.modules.keys()\n"
        "raise SystemExit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src")})


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("test", 0, "full"), "the splits are train, seen, unseen"),
        (("train", 0, "big"), "the sizes are full, small"),
        (("train", -1, "full"), "counts from 0"),
    ],
)
def test_what_does_not_exist_is_refused_in_a_sentence(
    args: tuple[str, int, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        generate(*args)


def _shuffled(scene: Scene, rng: random.Random) -> Scene:
    """The same room with its things elsewhere."""
    where = [(t.inside, t.at) for t in scene.things]
    rng.shuffle(where)
    things = tuple(
        replace(t, inside=inside, at=at)
        for t, (inside, at) in zip(scene.things, where, strict=True)
    )
    return replace(scene, things=things)


def _transcript(scene: Scene) -> tuple[list[str], list[str]]:
    commands = explore(scene, 0)
    game = Game(scene)
    return commands, [game.intro(), *(game.step(command) for command in commands)]


def test_the_explorer_acts_only_on_what_it_has_observed() -> None:
    # Two rooms that differ in what is hidden: as long as the texts agree, so must the commands.
    rng = random.Random(0)
    diverged = 0
    for seed in range(300):
        scene = generate("train", seed, "full" if seed % 2 else "small")
        other = _shuffled(scene, rng)
        if Game(other).won:
            continue
        commands, texts = _transcript(scene)
        commands_2, texts_2 = _transcript(other)
        for i, (one, two) in enumerate(zip(commands, commands_2, strict=False)):
            if texts[i] != texts_2[i]:
                diverged += 1
                break
            assert one == two, (seed, i, commands, commands_2)
    assert diverged > 200


@pytest.mark.parametrize("size", SIZES)
def test_the_explorer_wastes_nothing(size: str) -> None:
    for seed in range(240):
        scene = generate("seen", seed, size)
        game, shown = Game(scene), Counter()
        before = game.key()
        for command in explore(scene, seed):
            text = game.step(command)
            if command.startswith("examine"):
                shown[text] += 1
            else:
                assert game.key() != before, "a command that changes nothing"
            before = game.key()
        assert all(count == 1 for count in shown.values())


def test_the_explorer_breaks_ties_by_its_seed_and_is_the_same_for_the_same_seed() -> None:
    scene = next(
        s
        for s in (generate("train", seed, "full") for seed in range(100))
        if Counter(r.kind for r in s.receptacles)["Cabinet"] > 5 and len(explore(s)) > 10
    )
    ways = {tuple(explore(scene, seed)) for seed in range(20)}
    assert len(ways) > 1
    assert explore(scene, 3) == explore(scene, 3)


def _shortest(scene: Scene, most: int) -> int:
    """The length of the shortest way to win, by trying everything in order of length."""
    start = Game(scene)
    queue: deque[list[str]] = deque([[]])
    known = {start.key()}
    while queue:
        way = queue.popleft()
        game = Game(scene)
        for command in way:
            game.step(command)
        if game.won:
            return len(way)
        if len(way) == most:
            continue
        for command in game.admissible():
            game.reset()
            for earlier in (*way, command):
                game.step(earlier)
            key = game.key()
            if key not in known:
                known.add(key)
                queue.append([*way, command])
    return most + 1


def _tiny(goal: Goal) -> Scene:
    """A kitchen with little in it, so that everything can be tried."""
    scene = kitchen(goal)
    saved = ("Cabinet", "Fridge", "Microwave", "SinkBasin", "DiningTable", "CounterTop")
    furniture = tuple(r for r in scene.receptacles if r.kind in saved and r.id != CABINET_1)
    ids = {r.id for r in furniture}
    things = tuple(t for t in scene.things if t.inside[0] in ids and t.kind in ("Egg", "DeskLamp"))
    egg = Thing(
        id=EGG.replace("02", "04"),
        kind="Egg",
        inside=(furniture[1].id,),
        at=(furniture[1].location,),
        traits=next(t.traits for t in things if t.id == EGG),
    )
    return replace(scene, receptacles=furniture, things=(*things, egg))


@pytest.mark.parametrize(
    "goal",
    [
        Goal(family=Family.PICK, thing="Egg", receptacle="Microwave"),
        Goal(family=Family.PICK, thing="Egg", receptacle="DiningTable"),
        Goal(family=Family.CLEAN, thing="Egg", receptacle="DiningTable"),
        Goal(family=Family.HEAT, thing="Egg", receptacle="Fridge"),
        Goal(family=Family.COOL, thing="Egg", receptacle="Microwave"),
        Goal(family=Family.LIGHT, thing="Egg", toggle="DeskLamp"),
        Goal(family=Family.TWO, thing="Egg", receptacle="SinkBasin"),
    ],
    ids=lambda goal: f"{goal.family.name}-{goal.receptacle or goal.toggle}",
)
def test_the_plan_is_the_shortest_way_there_is(goal: Goal) -> None:
    scene = _tiny(goal)
    known = plan(scene)
    assert walked(scene, known).won
    assert _shortest(scene, len(known) - 1) == len(known)


def test_experts_say_so_when_there_is_no_way() -> None:
    scene = generate("train", 2, "small")
    without = replace(scene, things=tuple(t for t in scene.things if t.kind != scene.goal.thing))
    for expert in (explore, plan):
        with pytest.raises(UnsolvableError, match="choose another game"):
            expert(without)
    sliced = replace(scene, goal=replace(scene.goal, sliced=True))
    for expert in (explore, plan):
        with pytest.raises(UnsolvableError, match="sliced"):
            expert(sliced)
    bolted = replace(
        scene, things=tuple(replace(t, traits=t.traits - {"pickupable"}) for t in scene.things)
    )
    for expert in (explore, plan):
        with pytest.raises(UnsolvableError):
            expert(bolted)
    no_station = replace(
        scene, receptacles=tuple(r for r in scene.receptacles if r.kind != "SinkBasin")
    )
    things = tuple(
        t for t in no_station.things if t.inside[0] in {r.id for r in no_station.receptacles}
    )
    for expert in (explore, plan):
        with pytest.raises(UnsolvableError):
            expert(replace(no_station, things=things))


def test_experts_have_nothing_to_do_in_a_game_that_is_won() -> None:
    scene = kitchen(Goal(family=Family.PICK, thing="Egg", receptacle="Fridge"))
    assert explore(scene) == plan(scene) == []


def test_the_explorer_looks_first_where_it_is_likely_and_quick_to_look() -> None:
    scene = kitchen(Goal(family=Family.PICK, thing="Apple", receptacle="Shelf"))
    hidden = tuple(
        replace(t, inside=(CABINET_1,)) if t.kind == "Apple" else t for t in scene.things
    )
    commands = explore(replace(scene, things=hidden))
    looked = [c.split(" ", 1)[1].removeprefix("to ") for c in commands if c[:2] in ("go", "ex")]
    assert looked[:6] == [
        "countertop 1",  # 1
        "diningtable 1",  # 1/3
        "fridge 1",  # 1/2, but it has a door
        "sinkbasin 1",  # 1/4
        "microwave 1",  # 1/5, and a door
        "shelf 1",  # hardly; then the cabinets, where nobody keeps apples
    ]


def test_two_of_a_kind_go_where_one_already_is() -> None:
    scene = _tiny(Goal(family=Family.TWO, thing="Egg", receptacle="Fridge"))
    assert scene.receptacles[1].id != FRIDGE
    assert len(plan(scene)) == 5  # go, take, go, open, move
    assert walked(scene, explore(scene)).won


@settings(max_examples=60, deadline=None)
@given(scenes, st.randoms(use_true_random=False), st.lists(st.text(max_size=60), max_size=5))
def test_any_walk_is_consistent(scene: Scene, rng: random.Random, garbage: list[str]) -> None:
    game = Game(scene)
    assert not game.won
    done: list[tuple[str, str]] = []
    for _ in range(40):
        listed = game.admissible()
        assert listed == sorted(set(listed))
        before = game.key()
        for text in (*garbage, *(command.upper() for command in listed)):
            if text.strip() not in listed:
                assert game.step(text) == NOTHING
                assert game.key() == before
        command = rng.choice(listed)
        answer = game.step(command)
        assert answer != NOTHING
        assert answer.strip()
        done.append((command, answer))
    again = Game(scene)
    assert [again.step(command) for command, _ in done] == [answer for _, answer in done]
    assert again.key() == game.key()
    assert again.admissible() == game.admissible()
    assert again.won == game.won
    game.reset()
    assert [game.step(command) for command, _ in done] == [answer for _, answer in done]


@settings(max_examples=30, deadline=None)
@given(scenes)
def test_doing_nothing_never_wins(scene: Scene) -> None:
    game = Game(scene)
    for _ in range(3):
        for command in ("look", "inventory", "help", "", "win", "done"):
            game.step(command)
        for receptacle in [c for c in game.admissible() if c.startswith("go to")]:
            game.step(receptacle)
            assert not game.won


@settings(max_examples=30, deadline=None)
@given(scenes, st.randoms(use_true_random=False))
def test_one_carries_at_most_one_thing_and_nothing_is_ever_lost(
    scene: Scene, rng: random.Random
) -> None:
    game = Game(scene)
    for _ in range(60):
        game.step(rng.choice(game.admissible()))
        lying = [t for r in range(len(scene.receptacles)) for t in game._contents[r]]
        assert len(lying) == len(set(lying)) == len(scene.things) - (game.held is not None)
        assert all(contents == sorted(contents) for contents in game._contents)


def test_small_and_full_rooms_have_the_same_furniture_kinds() -> None:
    assert all(SMALL[room].keys() <= FULL[room].keys() for room in FULL)
    kinds = set().union(*FULL.values())
    assert all({*kind.found, *kind.fits} <= kinds for kind in THINGS.values())
