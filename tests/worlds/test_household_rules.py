"""The rules and texts of household, one by one, in a hand-written kitchen."""

from dataclasses import replace

import pytest
from support.household_scenes import (
    APPLE_1,
    CABINET_1,
    COUNTER,
    EGG,
    FOOD,
    FRIDGE,
    KNIFE,
    MICROWAVE,
    MUG,
    SHELF,
    TABLE,
    kitchen,
    place,
    with_thing,
)

from tutelage_worlds.household import Game
from tutelage_worlds.household.scene import Family, Goal, Thing
from tutelage_worlds.household.wording import DEFAULT

NOTHING = "Nothing happens."


def play(game: Game, *commands: str) -> str:
    """Do the commands, all of which must be admissible, and say what the last answered."""
    text = ""
    for command in commands:
        assert command in game.admissible(), (command, game.admissible())
        text = game.step(command)
        assert text != NOTHING, command
    return text


def refused(game: Game, *commands: str) -> None:
    """None of the commands is admissible, none does anything."""
    before, listed = game.key(), game.admissible()
    for command in commands:
        assert command not in listed
        assert game.step(command) == NOTHING, command
        assert game.key() == before
        assert game.admissible() == listed


@pytest.fixture
def game() -> Game:
    return Game(kitchen())


def test_intro_lists_furniture_by_id_with_falling_numbers_and_the_task(game: Game) -> None:
    assert game.intro() == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 2, "
        "a cabinet 1, a countertop 1, a diningtable 1, a fridge 1, a microwave 1, a shelf 1, "
        "and a sinkbasin 1.\n\n"
        "Your task is to: put a apple in fridge."
    )


def test_at_the_start_one_can_only_go_and_know(game: Game) -> None:
    assert game.admissible() == [
        "go to cabinet 1",
        "go to cabinet 2",
        "go to countertop 1",
        "go to diningtable 1",
        "go to fridge 1",
        "go to microwave 1",
        "go to shelf 1",
        "go to sinkbasin 1",
        "help",
        "inventory",
        "look",
    ]


def test_look_at_the_start_sees_nothing_although_the_intro_lists_everything(game: Game) -> None:
    assert play(game, "look") == (
        "You are in the middle of a room. Looking quickly around you, you see nothing."
    )


def test_arriving_shows_what_is_open_and_hides_what_is_closed(game: Game) -> None:
    assert play(game, "go to countertop 1") == (
        "You arrive at countertop 1. On the countertop 1, you see a apple 2, a apple 1, "
        "and a knife 1."
    )
    assert play(game, "go to fridge 1") == "You arrive at fridge 1. The fridge 1 is closed."
    assert play(game, "go to sinkbasin 1") == (
        "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing."
    )
    assert play(game, "go to diningtable 1") == (
        "You arrive at diningtable 1. On the diningtable 1, you see a desklamp 2, and a mug 1."
    )


def test_open_and_close(game: Game) -> None:
    play(game, "go to fridge 1")
    refused(game, "close fridge 1", "take egg 1 from fridge 1", "open cabinet 1")
    assert play(game, "open fridge 1") == (
        "You open the fridge 1. The fridge 1 is open. In it, you see a egg 1."
    )
    refused(game, "open fridge 1")
    assert play(game, "examine fridge 1") == "The fridge 1 is open. In it, you see a egg 1."
    assert play(game, "close fridge 1") == "You close the fridge 1."
    assert play(game, "examine fridge 1") == "The fridge 1 is closed."
    play(game, "go to countertop 1")
    refused(game, "open countertop 1", "close countertop 1", "open fridge 1")


def test_take_needs_empty_hands_and_put_gives_them_back(game: Game) -> None:
    play(game, "go to countertop 1")
    assert play(game, "take apple 1 from countertop 1") == (
        "You pick up the apple 1 from the countertop 1."
    )
    assert game.held == "apple 1"
    refused(game, "take apple 2 from countertop 1", "take apple 1 from countertop 1")
    assert play(game, "inventory") == "You are carrying: a apple 1."
    assert play(game, "move apple 1 to countertop 1") == (
        "You move the apple 1 to the countertop 1."
    )
    assert game.held is None
    assert play(game, "inventory") == "You are not carrying anything."
    refused(game, "move apple 1 to countertop 1", "examine apple 1")


def test_put_needs_a_place_that_is_open_and_takes_such_things(game: Game) -> None:
    play(game, "go to countertop 1", "take knife 1 from countertop 1")
    play(game, "go to fridge 1", "open fridge 1")
    refused(game, "move knife 1 to fridge 1")
    play(game, "go to countertop 1", "move knife 1 to countertop 1")
    play(game, "take apple 2 from countertop 1", "go to microwave 1")
    refused(game, "move apple 2 to microwave 1")
    play(game, "open microwave 1", "move apple 2 to microwave 1")


def test_things_are_cleaned_heated_and_cooled_in_the_hand_even_at_a_closed_door(
    game: Game,
) -> None:
    play(game, "go to countertop 1", "take apple 1 from countertop 1")
    refused(game, "clean apple 1 with sinkbasin 1", "heat apple 1 with microwave 1")
    assert play(game, "examine apple 1") == "There's nothing special about apple 1."
    assert play(game, "go to microwave 1", "heat apple 1 with microwave 1") == (
        "You heat the apple 1 using the microwave 1."
    )
    assert play(game, "examine apple 1") == "This is a hot apple 1."
    assert play(game, "go to fridge 1", "cool apple 1 with fridge 1") == (
        "You cool the apple 1 using the fridge 1."
    )
    assert play(game, "examine apple 1") == "This is a cold apple 1."
    assert play(game, "go to sinkbasin 1", "clean apple 1 with sinkbasin 1") == (
        "You clean the apple 1 using the sinkbasin 1."
    )
    assert play(game, "examine apple 1") == "This is a cool and clean apple 1."
    play(game, "go to microwave 1", "heat apple 1 with microwave 1")
    assert play(game, "examine apple 1") == "This is a hot and clean apple 1."


def test_what_cannot_be_cleaned_is_not() -> None:
    mug = Thing(id=MUG, kind="Mug", inside=(TABLE,), traits=frozenset({"pickupable"}))
    game = Game(with_thing(kitchen(), mug))
    play(game, "go to diningtable 1", "take mug 1 from diningtable 1", "go to sinkbasin 1")
    refused(game, "clean mug 1 with sinkbasin 1")


def test_what_cannot_be_heated_or_cooled_is_not(game: Game) -> None:
    play(game, "go to countertop 1", "take knife 1 from countertop 1", "go to microwave 1")
    refused(game, "heat knife 1 with microwave 1")
    play(game, "go to fridge 1")
    refused(game, "cool knife 1 with fridge 1")
    assert play(game, "go to sinkbasin 1", "clean knife 1 with sinkbasin 1", "examine knife 1") == (
        "This is a clean knife 1."
    )


@pytest.mark.parametrize(
    ("traits", "text"),
    [
        (["issliced"], "This is a sliced apple 1."),
        (["issliced", "ishot"], "This is a hot sliced apple 1."),
        (["issliced", "iscool"], "This is a cool sliced apple 1."),
        (["issliced", "isclean"], "This is a clean sliced apple 1."),
        (["issliced", "isclean", "ishot"], "This is a hot and clean sliced apple 1."),
        (["issliced", "isclean", "iscool"], "This is a cool and clean sliced apple 1."),
        (["isclean"], "This is a clean apple 1."),
        (["toggleable", "istoggled"], "This apple 1 is on."),
        (["toggleable"], "There's nothing special about apple 1."),
        (["istoggled"], "There's nothing special about apple 1."),
    ],
)
def test_examining_tells_the_state_of_a_thing(traits: list[str], text: str) -> None:
    apple = Thing(
        id=APPLE_1, kind="Apple", inside=(COUNTER,), at=(place("3"),), traits=FOOD | set(traits)
    )
    game = Game(with_thing(kitchen(), apple))
    play(game, "go to countertop 1", "take apple 1 from countertop 1")
    assert play(game, "examine apple 1") == text


def test_sliced_is_only_said_of_what_can_be_sliced() -> None:
    mug = Thing(id=MUG, kind="Mug", inside=(TABLE,), traits=frozenset({"pickupable", "issliced"}))
    game = Game(with_thing(kitchen(), mug))
    play(game, "go to diningtable 1", "take mug 1 from diningtable 1")
    assert play(game, "examine mug 1") == "There's nothing special about mug 1."


def test_vessels_show_what_is_in_them_whatever_their_state() -> None:
    game = Game(kitchen())
    play(game, "go to diningtable 1", "take mug 1 from diningtable 1")
    play(game, "go to microwave 1", "heat mug 1 with microwave 1")
    assert play(game, "examine mug 1") == "This is a normal mug 1. In it, you see nothing."
    mug = Thing(
        id=MUG,
        kind="Mug",
        inside=(TABLE,),
        holds=(EGG, KNIFE),
        traits=frozenset({"pickupable", "isreceptacleobject"}),
    )
    game = Game(with_thing(kitchen(), mug))
    play(game, "go to diningtable 1", "take mug 1 from diningtable 1")
    assert play(game, "examine mug 1") == (
        "This is a normal mug 1. In it, you see a egg 1, and a knife 1."
    )


def test_only_the_thing_in_the_hand_can_be_examined(game: Game) -> None:
    play(game, "go to countertop 1")
    refused(game, "examine apple 1", "examine knife 1")
    play(game, "take apple 1 from countertop 1")
    refused(game, "examine apple 2", "examine knife 1", "examine fridge 1")
    play(game, "examine apple 1", "examine countertop 1")


def test_a_lamp_turns_on_and_on_even_behind_a_closed_door(game: Game) -> None:
    play(game, "go to diningtable 1")
    refused(game, "take desklamp 2 from diningtable 1", "use mug 1", "use desklamp 1")
    assert play(game, "use desklamp 2") == "You turn on the desklamp 2."
    assert play(game, "use desklamp 2") == "You turn on the desklamp 2."
    play(game, "go to cabinet 1")
    assert play(game, "use desklamp 1") == "You turn on the desklamp 1."


def test_a_knife_in_the_hand_slices_what_is_here_even_in_a_closed_box(game: Game) -> None:
    play(game, "go to countertop 1")
    refused(game, "slice apple 1 with knife 1")
    play(game, "take knife 1 from countertop 1")
    assert play(game, "slice apple 1 with knife 1") == "You sliced the apple 1 with the knife 1."
    assert "slice apple 1 with knife 1" in game.admissible()
    refused(game, "slice mug 1 with knife 1", "slice egg 1 with knife 1")
    play(game, "go to fridge 1")
    assert play(game, "slice egg 1 with knife 1") == "You sliced the egg 1 with the knife 1."
    play(game, "go to countertop 1", "move knife 1 to countertop 1")
    assert play(game, "take apple 1 from countertop 1", "examine apple 1") == (
        "This is a sliced apple 1."
    )


def test_slicing_uses_the_stated_place_of_a_thing() -> None:
    apple = Thing(id=APPLE_1, kind="Apple", inside=(COUNTER,), at=(place("4"),), traits=FOOD)
    game = Game(with_thing(kitchen(), apple))
    play(game, "go to countertop 1", "take knife 1 from countertop 1")
    refused(game, "slice apple 1 with knife 1")
    play(game, "go to fridge 1", "slice apple 1 with knife 1")


def test_furniture_at_the_same_place_is_here_but_cannot_be_gone_to(game: Game) -> None:
    play(game, "go to shelf 1")
    refused(game, "go to diningtable 1", "go to shelf 1")
    assert play(game, "examine diningtable 1") == (
        "On the diningtable 1, you see a desklamp 2, and a mug 1."
    )
    play(game, "take mug 1 from diningtable 1", "move mug 1 to shelf 1")


def test_look_names_the_furniture_here_and_what_changed_its_furniture_here(game: Game) -> None:
    play(game, "go to shelf 1")
    here = "You are facing the diningtable 1, and shelf 1. Next to it, you see "
    assert play(game, "look") == here + "nothing."
    play(game, "take mug 1 from diningtable 1")
    assert play(game, "look") == here + "nothing."
    play(game, "move mug 1 to shelf 1")
    assert play(game, "look") == here + "a mug 1."
    play(game, "take mug 1 from shelf 1", "move mug 1 to diningtable 1")
    assert play(game, "look") == here + "a mug 1."  # it has left the shelf
    play(game, "take mug 1 from diningtable 1", "move mug 1 to shelf 1")
    play(game, "take mug 1 from shelf 1", "go to countertop 1", "move mug 1 to countertop 1")
    assert play(game, "look") == "You are facing the countertop 1. Next to it, you see nothing."


def test_a_thing_that_left_two_pieces_of_furniture_here_is_named_twice() -> None:
    scene = kitchen()
    furniture = tuple(
        replace(r, location=place("5")) if r.id == COUNTER else r for r in scene.receptacles
    )
    game = Game(replace(scene, receptacles=furniture))
    play(game, "go to shelf 1", "take mug 1 from diningtable 1", "move mug 1 to shelf 1")
    play(game, "take mug 1 from shelf 1", "move mug 1 to countertop 1")
    assert play(game, "look") == (
        "You are facing the countertop 1, diningtable 1, and shelf 1. "
        "Next to it, you see a mug 1, and a mug 1."
    )


def test_a_thing_in_two_places_leaves_the_one_it_is_taken_from() -> None:
    apple = Thing(id=APPLE_1, kind="Apple", inside=(COUNTER, SHELF), at=(place("3"),), traits=FOOD)
    game = Game(with_thing(kitchen(), apple))
    play(game, "go to countertop 1", "take apple 1 from countertop 1")
    assert "apple 1" in play(game, "go to shelf 1")
    refused(game, "take apple 1 from shelf 1")
    play(game, "go to countertop 1", "move apple 1 to countertop 1", "go to shelf 1")
    play(game, "take apple 1 from shelf 1")


def test_a_thing_that_is_in_the_hand_and_still_somewhere_is_listed_there_once() -> None:
    apple = Thing(id=APPLE_1, kind="Apple", inside=(COUNTER, SHELF), at=(), traits=FOOD)
    goal = Goal(family=Family.PICK, thing="Apple", receptacle="Shelf")
    game = Game(with_thing(kitchen(goal), apple))
    assert game.won
    play(game, "go to countertop 1", "take apple 1 from countertop 1", "go to shelf 1")
    assert game.won
    assert play(game, "examine shelf 1") == "On the shelf 1, you see a apple 1."
    play(game, "move apple 1 to shelf 1")
    assert play(game, "examine shelf 1") == "On the shelf 1, you see a apple 1."


def test_help_lists_the_commands(game: Game) -> None:
    text = play(game, "help")
    assert text.startswith(
        "Available commands:\n"
        "  look:                             look around your current location\n"
    )
    assert "\n  move (object) to (receptacle):  place an object in or on a receptacle\n" in text
    assert text.endswith("slice an object using a sharp object\n")
    assert text.count("\n") == 14


@pytest.mark.parametrize(
    "command",
    [
        "",
        " ",
        "go",
        "go to",
        "Go to fridge 1",
        "GO TO FRIDGE 1",
        "go to fridge",
        "go to fridge 2",
        "go  to fridge 1",
        "go to fridge 1.",
        "go to fridge 1\ngo to fridge 1",
        "take apple 1",
        "examine",
        "put apple 1 in/on fridge 1",
        "\x00",
        "\ud800",
        "🍎",
        "{r}",
        "go to {r}",
        "%s",
        "look\x00",
        "go to fridge 1" * 100_000,
    ],
)
def test_anything_else_does_nothing(game: Game, command: str) -> None:
    refused(game, command)
    play(game, "go to countertop 1")
    refused(game, command)


@pytest.mark.parametrize("command", [" look", "look ", "\tlook\n", "\u2003look"])
def test_blanks_around_a_command_do_not_matter(game: Game, command: str) -> None:
    assert game.step(command) != NOTHING


def test_the_wording_of_a_game_decides_what_is_said_and_understood() -> None:
    old = replace(
        DEFAULT,
        put="put {o} in/on {r}",
        placed="You put the {o} in/on the {r}.",
        arrived="You arrive at {l}. {seen}",
        help="",
    )
    game = Game(replace(kitchen(), wording=old))
    refused(game, "help", "")
    assert play(game, "go to countertop 1") == (
        "You arrive at loc 5. On the countertop 1, you see a apple 2, a apple 1, and a knife 1."
    )
    play(game, "take apple 1 from countertop 1")
    refused(game, "move apple 1 to countertop 1")
    assert play(game, "put apple 1 in/on countertop 1") == (
        "You put the apple 1 in/on the countertop 1."
    )


def test_things_are_cleaned_where_the_game_says() -> None:
    game = Game(replace(kitchen(), sinks=frozenset({"CounterTop"})))
    play(game, "go to countertop 1", "take apple 1 from countertop 1")
    play(game, "clean apple 1 with countertop 1", "go to sinkbasin 1")
    refused(game, "clean apple 1 with sinkbasin 1")


def test_an_id_without_a_bar_has_no_number_and_cannot_be_typed() -> None:
    scene = kitchen()
    furniture = tuple(replace(r, id="Chest") if r.id == CABINET_1 else r for r in scene.receptacles)
    things = tuple(
        replace(t, inside=("Chest",)) if t.inside == (CABINET_1,) else t for t in scene.things
    )
    game = Game(replace(scene, receptacles=furniture, things=things))
    assert "a chest ," in game.intro()
    assert "go to chest " in game.admissible()
    assert game.step("go to chest ") == NOTHING


def test_starting_at_furniture_the_intro_shows_only_that() -> None:
    game = Game(replace(kitchen(), start=place("5")))
    assert game.intro() == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are facing the diningtable 1, and shelf 1. Next to it, you see nothing.\n\n"
        "Your task is to: put a apple in fridge."
    )
    refused(game, "go to shelf 1")
    play(game, "take mug 1 from diningtable 1")


def test_open_furniture_at_the_start() -> None:
    scene = kitchen()
    furniture = tuple(replace(r, open=r.id == FRIDGE) for r in scene.receptacles)
    game = Game(replace(scene, receptacles=furniture))
    assert "In it, you see a egg 1." in play(game, "go to fridge 1")


def _goal(family: Family, **kinds: str) -> Goal:
    return Goal(family=family, **{"thing": "Apple", "receptacle": "Shelf", **kinds})


def test_pick_and_place_is_won_while_the_thing_is_there() -> None:
    game = Game(kitchen(_goal(Family.PICK)))
    play(game, "go to countertop 1", "take apple 1 from countertop 1", "go to shelf 1")
    assert not game.won
    play(game, "move apple 1 to shelf 1")
    assert game.won
    play(game, "take apple 1 from shelf 1")
    assert not game.won


@pytest.mark.parametrize(
    ("family", "station", "verb", "undo"),
    [
        (Family.CLEAN, "sinkbasin 1", "clean", ()),
        (Family.HEAT, "microwave 1", "heat", ("go to fridge 1", "cool apple 1 with fridge 1")),
        (Family.COOL, "fridge 1", "cool", ("go to microwave 1", "heat apple 1 with microwave 1")),
    ],
)
def test_treated_things_win_untreated_ones_do_not(
    family: Family, station: str, verb: str, undo: tuple[str, ...]
) -> None:
    game = Game(kitchen(_goal(family)))
    fetch = ("go to countertop 1", "take apple 1 from countertop 1")
    play(game, *fetch, "go to shelf 1", "move apple 1 to shelf 1")
    assert not game.won
    play(game, "take apple 1 from shelf 1", f"go to {station}", f"{verb} apple 1 with {station}")
    assert not game.won
    if undo:
        play(game, *undo, "go to shelf 1", "move apple 1 to shelf 1")
        assert not game.won
        play(game, "take apple 1 from shelf 1")
        play(game, f"go to {station}", f"{verb} apple 1 with {station}")
    play(game, "go to shelf 1", "move apple 1 to shelf 1")
    assert game.won


def test_another_thing_that_was_treated_does_not_win() -> None:
    game = Game(kitchen(_goal(Family.HEAT)))
    play(game, "go to diningtable 1", "take mug 1 from diningtable 1", "go to microwave 1")
    play(game, "heat mug 1 with microwave 1", "go to shelf 1", "move mug 1 to shelf 1")
    assert not game.won


def test_two_things_must_be_in_the_same_piece_of_furniture() -> None:
    scene = kitchen(Goal(family=Family.TWO, thing="Apple", receptacle="Cabinet"))
    game = Game(replace(scene, accepts=scene.accepts | {("Cabinet", "Apple")}))
    fetch = ("go to countertop 1", "take apple 1 from countertop 1")
    play(game, *fetch, "go to cabinet 1", "open cabinet 1", "move apple 1 to cabinet 1")
    play(game, "go to countertop 1", "take apple 2 from countertop 1")
    play(game, "go to cabinet 2", "open cabinet 2", "move apple 2 to cabinet 2")
    assert not game.won
    play(game, "take apple 2 from cabinet 2", "go to cabinet 1", "move apple 2 to cabinet 1")
    assert game.won


def test_light_wins_with_the_thing_in_the_hand_at_a_lamp_that_is_on() -> None:
    game = Game(kitchen(Goal(family=Family.LIGHT, thing="Apple", toggle="DeskLamp")))
    play(game, "go to diningtable 1", "use desklamp 2")
    assert not game.won
    play(game, "take mug 1 from diningtable 1")
    assert not game.won
    play(game, "move mug 1 to diningtable 1", "go to countertop 1")
    play(game, "take apple 1 from countertop 1")
    assert not game.won
    play(game, "go to shelf 1")  # the table with the lamp is at the same place
    assert game.won
    play(game, "move apple 1 to shelf 1")
    assert not game.won


def test_sliced_goals_want_sliced_things() -> None:
    game = Game(kitchen(replace(_goal(Family.PICK), sliced=True)))
    play(game, "go to countertop 1", "take apple 1 from countertop 1", "go to shelf 1")
    play(game, "move apple 1 to shelf 1")
    assert not game.won
    play(game, "go to countertop 1", "take knife 1 from countertop 1", "go to shelf 1")
    play(game, "slice apple 1 with knife 1")
    assert game.won


def test_sliced_goals_want_things_that_can_be_sliced() -> None:
    goal = replace(_goal(Family.PICK), sliced=True)
    traits = frozenset({"pickupable", "issliced"})
    for able in (False, True):
        apple = Thing(
            id=APPLE_1,
            kind="Apple",
            inside=(SHELF,),
            traits=traits | {"sliceable"} if able else traits,
        )
        assert Game(with_thing(kitchen(goal), apple)).won is able


def test_furniture_that_is_nowhere_is_neither_shown_nor_reached() -> None:
    scene = kitchen()
    furniture = tuple(
        replace(r, location="") if r.id == MICROWAVE else r for r in scene.receptacles
    )
    game = Game(replace(scene, receptacles=furniture))
    assert "microwave" not in game.intro()
    refused(game, "go to microwave 1")
    play(game, "go to countertop 1")
    refused(game, "go to microwave 1", "examine microwave 1")


@pytest.mark.parametrize("kind", ["Knife", "ButterKnife", "Fork"])
def test_knives_are_for_slicing(kind: str) -> None:
    tool = Thing(
        id=f"{kind}_bar_1",
        kind=kind,
        inside=(COUNTER,),
        at=(place("3"),),
        traits=frozenset({"pickupable"}),
    )
    game = Game(with_thing(kitchen(), tool))
    name = "knife 2" if kind == "Knife" else f"{kind.lower()} 1"
    play(game, "go to countertop 1", f"take {name} from countertop 1")
    command = f"slice apple 1 with {name}"
    assert (command in game.admissible()) == (kind != "Fork")


def test_sliced_light() -> None:
    goal = Goal(family=Family.LIGHT, thing="Apple", toggle="DeskLamp", sliced=True)
    game = Game(kitchen(goal))
    play(game, "go to diningtable 1", "use desklamp 2", "go to countertop 1")
    play(game, "take apple 1 from countertop 1", "go to diningtable 1")
    assert not game.won


def test_keys_tell_situations_apart_and_only_them(game: Game) -> None:
    start = game.key()
    hash(start)
    play(game, "look", "inventory", "help")
    assert game.key() == start
    play(game, "go to countertop 1")
    here = game.key()
    assert here != start
    play(game, "go to shelf 1", "go to countertop 1", "examine countertop 1")
    assert game.key() == here
    play(game, "take apple 1 from countertop 1")
    held = game.key()
    play(game, "move apple 1 to countertop 1")
    assert game.key() == here
    play(game, "take apple 2 from countertop 1")
    assert game.key() not in (held, here, start)
    play(game, "go to microwave 1")
    cold = game.key()
    play(game, "heat apple 2 with microwave 1")
    assert game.key() != cold


def test_keys_tell_apart_what_only_looking_shows(game: Game) -> None:
    play(game, "go to shelf 1")
    before, seen = game.key(), play(game, "look")
    play(game, "take mug 1 from diningtable 1", "move mug 1 to shelf 1")
    play(game, "take mug 1 from shelf 1", "move mug 1 to diningtable 1")
    assert play(game, "look") != seen
    assert game.key() != before


def test_keys_tell_apart_what_is_in_the_hand_and_what_was_put_down() -> None:
    places = (place("3"), place("5"))
    apple = Thing(id=APPLE_1, kind="Apple", inside=(COUNTER, SHELF), at=places, traits=FOOD)
    game = Game(with_thing(kitchen(), apple))
    play(game, "go to countertop 1", "take apple 1 from countertop 1", "go to shelf 1")
    held = game.key()
    play(game, "move apple 1 to shelf 1")
    assert game.key() != held


def test_reset_forgets_everything(game: Game) -> None:
    start, intro = game.key(), game.intro()
    play(game, "go to fridge 1", "open fridge 1", "take egg 1 from fridge 1")
    play(game, "go to microwave 1", "heat egg 1 with microwave 1")
    assert game.reset() == intro
    assert game.key() == start
    assert game.admissible() == Game(kitchen()).admissible()
    play(game, "go to fridge 1")
    refused(game, "close fridge 1")
