"""The rules of household games, equal to ALFWorld's (arXiv:2010.03768) in every text."""

from bisect import insort
from collections.abc import Callable, Hashable

from tutelage_worlds.household.scene import Scene
from tutelage_worlds.household.wording import NOTHING, listing
from tutelage_worlds.household.world import (
    CLEAN,
    COOL,
    HOT,
    SLICED,
    TOGGLED,
    Action,
    aim_at,
    build,
    commands_at,
)

_QUALITIES = (  # the first that holds is said
    (CLEAN | HOT | SLICED, "hot and clean sliced"),
    (CLEAN | COOL | SLICED, "cool and clean sliced"),
    (CLEAN | SLICED, "clean sliced"),
    (HOT | SLICED, "hot sliced"),
    (COOL | SLICED, "cool sliced"),
    (CLEAN | HOT, "hot and clean"),
    (CLEAN | COOL, "cool and clean"),
    (HOT, "hot"),
    (CLEAN, "clean"),
    (COOL, "cold"),
)


class Game:
    """One game being played.

    A command that is not admissible changes nothing and is answered "Nothing happens.".
    """

    __slots__ = (
        "_admissible",
        "_at",
        "_contents",
        "_flags",
        "_held",
        "_inside",
        "_left",
        "_legal",
        "_moved",
        "_opened",
        "_place",
        "aim",
        "scene",
        "world",
    )

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        world = self.world = build(scene)
        self.aim = aim_at(scene.goal, world)
        self.reset()

    def reset(self) -> str:
        """Back to the start; the same text as `intro`."""
        world = self.world
        self._place = world.start
        self._held = -1
        self._opened = world.opened
        self._inside = list(world.inside)
        self._at = list(world.at)
        self._flags = list(world.flags)
        self._left: set[tuple[int, int]] = (
            set()
        )  # (thing, receptacle): taken from there, not put back
        self._moved: set[int] = set()
        self._legal: dict[str, Action] | None = None
        self._admissible: list[str] | None = None
        self._contents: list[list[int]] = [[] for _ in world.receptacles]
        for thing, receptacles in enumerate(world.inside):
            for receptacle in receptacles:
                self._contents[receptacle].append(thing)
        return self.intro()

    # What the player can see.

    def intro(self) -> str:
        """The first observation: the furniture and the task."""
        world, words = self.world, self.world.wording
        around = listing(
            [f"a {n}" for n, p in zip(world.receptacles, world.place_of, strict=True) if p >= 0]
        )
        look = words.middle.format(list=around)
        if world.here[world.start]:
            look = self._look(-1, -1)
        return words.intro.format(look=look, task=words.task.format(task=world.task))

    def admissible(self) -> list[str]:
        """The commands that do something now, in alphabetical order."""
        if self._admissible is None:
            self._admissible = sorted(self._commands())
        return self._admissible

    @property
    def held(self) -> str | None:
        """The name of the object in the hand."""
        return None if self._held < 0 else self.world.things[self._held]

    @property
    def won(self) -> bool:
        """Whether the goal holds now."""
        aim, flags = self.aim, self._flags
        if aim.lamps is not None:
            if self._held not in aim.things or flags[self._held] & aim.needed != aim.needed:
                return False
            here = self.world.place_of
            return any(
                flags[lamp] & TOGGLED and any(here[r] == self._place for r in self._inside[lamp])
                for lamp in aim.lamps
            )
        filled: set[int] = set()
        for thing in aim.things:
            if flags[thing] & aim.needed == aim.needed:
                for receptacle in self._inside[thing]:
                    if receptacle in aim.receptacles:
                        if not aim.two or receptacle in filled:
                            return True
                        filled.add(receptacle)
        return False

    def at(self, receptacle: int) -> bool:
        """Whether the player stands at a receptacle."""
        return self.world.place_of[receptacle] == self._place

    def contents(self, receptacle: int) -> list[int] | None:
        """What is in or on a receptacle; None while it is closed."""
        if self.world.openable[receptacle] and not self._opened >> receptacle & 1:
            return None
        return self._contents[receptacle]

    def key(self) -> Hashable:
        """What actions can change: equal keys, of one scene, are the same situation."""
        moved = sorted(self._moved)
        return (
            self._place,
            self._held,
            self._opened,
            frozenset(self._left),
            tuple((t, self._inside[t], self._at[t], self._flags[t]) for t in moved),
        )

    # What the player can do.

    def step(self, command: str) -> str:
        """Do it and say what happened. Blanks around a command do not matter, case does."""
        action = self._commands().get(command.strip())
        if action is None:
            return NOTHING
        rule, thing, receptacle = action
        return _RULES[rule](self, thing, receptacle)

    def _forget(self) -> None:
        self._legal = None
        self._admissible = None

    def _commands(self) -> dict[str, Action]:
        if self._legal is None:
            self._legal = self._find_commands()
        return self._legal

    def _find_commands(self) -> dict[str, Action]:
        world, held = self.world, self._held
        legal = commands_at(world, self._place).copy()
        found: list[Action] = []
        for r in world.here[self._place]:
            contents = self._contents[r]
            if world.openable[r]:
                is_open = self._opened >> r & 1
                found.append(("close" if is_open else "open", -1, r))
            else:
                is_open = 1
            if is_open and held < 0:
                found.extend([("take", t, r) for t in contents if t in world.pickupable])
            if world.lamps:
                found.extend([("use", t, r) for t in contents if t in world.lamps])
            if held >= 0:
                if is_open and world.thing_kinds[held] in world.accepts[r]:
                    found.append(("put", held, r))
                if r in world.sinks and held in world.cleanable:
                    found.append(("clean", held, r))
                if r in world.microwaves and held in world.heatable:
                    found.append(("heat", held, r))
                if r in world.fridges and held in world.coolable:
                    found.append(("cool", held, r))
        if held >= 0:
            found.append(("examine_object", held, -1))
            if held in world.knives:
                place = self._place
                found.extend([("slice", t, held) for t in world.sliceable if place in self._at[t]])
        cache = world.cache
        for action in found:
            words = cache.get(action)
            if words is None:
                words = cache[action] = self._words(action)
            if words not in legal:
                legal[words] = action
        return legal

    def _words(self, action: Action) -> str:
        rule, thing, other = action
        world = self.world
        template: str = getattr(world.wording, rule)
        return template.format(
            o=world.things[thing] if thing >= 0 else "",
            r=world.receptacles[other] if other >= 0 and rule != "slice" else "",
            k=world.things[other] if rule == "slice" else "",
        )

    # The rules.

    def _describe(self, receptacle: int) -> str:
        world, words = self.world, self.world.wording
        name = world.receptacles[receptacle]
        if not world.openable[receptacle]:
            template = words.surface
        elif self._opened >> receptacle & 1:
            template = words.is_open
        else:
            return words.is_closed.format(r=name)
        things = world.things
        return template.format(
            r=name, list=listing([f"a {things[t]}" for t in self._contents[receptacle]])
        )

    def _go(self, _: int, receptacle: int) -> str:
        world = self.world
        self._place = world.place_of[receptacle]
        self._forget()
        return world.wording.arrived.format(
            r=world.receptacles[receptacle],
            l=world.places[self._place],
            seen=self._describe(receptacle),
        )

    def _open(self, _: int, receptacle: int) -> str:
        self._opened |= 1 << receptacle
        self._forget()
        return self.world.wording.opened.format(
            r=self.world.receptacles[receptacle], seen=self._describe(receptacle)
        )

    def _close(self, _: int, receptacle: int) -> str:
        self._opened &= ~(1 << receptacle)
        self._forget()
        return self.world.wording.closed.format(r=self.world.receptacles[receptacle])

    def _take(self, thing: int, receptacle: int) -> str:
        self._contents[receptacle].remove(thing)
        self._inside[thing] = tuple(r for r in self._inside[thing] if r != receptacle)
        self._at[thing] = tuple(p for p in self._at[thing] if p != self._place)
        self._left.add((thing, receptacle))
        self._held = thing
        return self._changed(thing, self.world.wording.taken, receptacle)

    def _put(self, thing: int, receptacle: int) -> str:
        if thing not in self._contents[receptacle]:
            insort(self._contents[receptacle], thing)
        self._inside[thing] = tuple(sorted({*self._inside[thing], receptacle}))
        self._at[thing] = tuple(sorted({*self._at[thing], self._place}))
        self._left.discard((thing, receptacle))
        self._held = -1
        return self._changed(thing, self.world.wording.placed, receptacle)

    def _clean(self, thing: int, receptacle: int) -> str:
        self._flags[thing] |= CLEAN
        return self._changed(thing, self.world.wording.cleaned, receptacle)

    def _heat(self, thing: int, receptacle: int) -> str:
        self._flags[thing] = (self._flags[thing] | HOT) & ~COOL
        return self._changed(thing, self.world.wording.heated, receptacle)

    def _cool(self, thing: int, receptacle: int) -> str:
        self._flags[thing] = (self._flags[thing] | COOL) & ~HOT
        return self._changed(thing, self.world.wording.cooled, receptacle)

    def _use(self, thing: int, receptacle: int) -> str:
        self._flags[thing] |= TOGGLED
        return self._changed(thing, self.world.wording.used, receptacle)

    def _slice(self, thing: int, knife: int) -> str:
        self._flags[thing] |= SLICED
        self._changed(thing, "", 0)
        return self.world.wording.sliced.format(
            o=self.world.things[thing], k=self.world.things[knife]
        )

    def _changed(self, thing: int, template: str, receptacle: int) -> str:
        """Keep the key canonical: a thing is in it only while it differs from the start."""
        world = self.world
        same = (
            self._inside[thing] == world.inside[thing]
            and self._at[thing] == world.at[thing]
            and self._flags[thing] == world.flags[thing]
        )
        (self._moved.discard if same else self._moved.add)(thing)
        self._forget()
        return template.format(o=world.things[thing], r=world.receptacles[receptacle])

    def _look(self, _: int, __: int) -> str:
        world, words = self.world, self.world.wording
        here = world.here[self._place]
        if not here:
            return words.middle.format(list="nothing")
        floor = [
            f"a {world.things[t]}"
            for t, r in sorted(self._left)
            if world.place_of[r] == self._place and self._place in self._at[t]
        ]
        return words.facing.format(
            list=listing([world.receptacles[r] for r in here]), floor=listing(floor)
        )

    def _inventory(self, _: int, __: int) -> str:
        words = self.world.wording
        if self._held < 0:
            return words.empty_handed
        return words.carrying.format(list=f"a {self.held}")

    def _help(self, _: int, __: int) -> str:
        return self.world.wording.helped

    def _examine_receptacle(self, _: int, receptacle: int) -> str:
        return self._describe(receptacle)

    def _examine_object(self, thing: int, _: int) -> str:
        world, words = self.world, self.world.wording
        name = world.things[thing]
        if thing in world.vessels:
            return words.vessel.format(
                o=name, list=listing([f"a {world.things[t]}" for t in world.holds[thing]])
            )
        flags = self._flags[thing]
        for needed, quality in _QUALITIES:
            if flags & needed == needed:
                return words.quality.format(quality=quality, o=name)
        if flags & TOGGLED and thing in world.lamps:
            return words.lit.format(o=name)
        if flags & SLICED and thing in world.sliceable:
            return words.quality.format(quality="sliced", o=name)
        return words.plain.format(o=name)


_RULES: dict[str, Callable[[Game, int, int], str]] = {
    "go": Game._go,
    "open": Game._open,
    "close": Game._close,
    "take": Game._take,
    "put": Game._put,
    "clean": Game._clean,
    "heat": Game._heat,
    "cool": Game._cool,
    "use": Game._use,
    "slice": Game._slice,
    "look": Game._look,
    "inventory": Game._inventory,
    "help": Game._help,
    "examine_receptacle": Game._examine_receptacle,
    "examine_object": Game._examine_object,
}
