"""Many games in one JVM: isolated, reproducible, and replaced when it dies."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tutelage.envs.pool import Failure, ProcessPool
from tutelage.errors import ConfigError, EnvError
from tutelage.types import Observation
from tutelage_worlds.java import Gone, Java, Late, Ref, Thrown, ref
from tutelage_worlds.scienceworld import ScienceWorld, simulator
from tutelage_worlds.scienceworld.catalogue import TASKS
from tutelage_worlds.scienceworld.hashing import numbered, overlay
from tutelage_worlds.scienceworld.simulator import Game, Place, Shown, Simulator

LACKING = find_spec("scienceworld") is None or shutil.which("java") is None
pytestmark = pytest.mark.skipif(
    LACKING, reason="needs Java and pip install 'tutelage[scienceworld]'"
)
Which = tuple[str, int, str]
PAINT: Which = ("chemistry-mix-paint-tertiary-color", 3, "")
LIVES: Which = ("identify-life-stages-2", 3, "easy")
HEAT: Which = ("use-thermometer", 3, "")
WAYS: dict[Which, list[str]] = {}


@pytest.fixture(scope="module")
def machine() -> Simulator:
    return simulator.simulator(512)


def way(machine: Simulator, which: Which) -> list[str]:
    """The first steps of the simulator's own way."""
    if which not in WAYS:
        WAYS[which] = machine.gold(*which)[:18]
    return WAYS[which]


def walk(machine: Simulator, which: Which) -> list[Shown]:
    game, _, shown = machine.begin(*which)
    path = [shown, *(machine.act(game, action) for action in way(machine, which))]
    game.end()
    return path


def test_the_same_actions_always_lead_to_the_same(machine: Simulator) -> None:
    """These three go differently from time to time in the simulator as it is."""
    for which in (PAINT, LIVES, HEAT):
        paths = [walk(machine, which) for _ in range(3)]
        assert paths[0] == paths[1] == paths[2]


def test_games_side_by_side_do_not_touch_each_other(machine: Simulator) -> None:
    """Simplifications, random numbers and numbers of objects are each game's own."""
    those = (PAINT, LIVES, HEAT)
    alone = {which: walk(machine, which) for which in those}
    games = {which: machine.begin(*which) for which in those}
    for k in range(18):
        if k == 9:
            machine.gold("find-animal", 0, "easy")
            machine.actions(games[PAINT][0])
        for which in those:
            if k < len(way(machine, which)):
                shown = machine.act(games[which][0], way(machine, which)[k])
                assert shown == alone[which][k + 1], (which, k)


def test_what_all_games_share_is_put_aside_and_comes_back(machine: Simulator) -> None:
    def shared() -> tuple[object, ...]:
        with machine as java:
            return (
                java.call(simulator.COUNTER, "count"),
                machine._drawn(java),
                java.call(simulator.SIMPLIFIER, "getSimplificationsUsed"),
            )

    games, before = [], []
    for which in (("boil", 1, "openDoors"), LIVES, ("find-plant", 2, "")):
        games.append(machine.begin(*which)[0])
        before.append(shared())
    for each in zip(*before, strict=True):
        assert len(set(each)) > 1, "the games are too much alike"
    for game, expected in zip(games, before, strict=True):
        machine.act(game, "look around")
        assert shared() == expected


@pytest.mark.parametrize(
    "task",
    [pytest.param(t, marks=pytest.mark.nightly) if k % 3 else t for k, t in enumerate(TASKS)],
)
def test_lean_steps_say_what_the_interface_says(machine: Simulator, task: str) -> None:
    """The interface's own step also looks, lists what can be named, and keeps a history."""
    which, long = (task, 3, "easy" if task == LIVES[0] else ""), task in (PAINT[0], LIVES[0])
    actions = [*machine.gold(*which)[: 18 if long else 4], "inventory", "focus on nothing"]
    game, _, shown = machine.begin(*which)
    ours = [shown, *(machine.act(game, action) for action in actions)]
    game.end()
    with machine as java:
        machine._leave(java)
        maker = java.new(simulator.MAKER)
        java.call(maker, "load", *which, False)
        for action, shown in zip(["look around", *actions], ours, strict=True):
            text = java.call(maker, "step", action)
            look, carried = (
                java.call(maker, f"freeAction{what}") for what in ("Look", "Inventory")
            )
            score, done, moves = (
                java.call(maker, f"get{what}") for what in ("Score", "Completed", "NumMoves")
            )
            assert shown == Shown(
                str(text),
                float(str(score)),
                bool(done),
                int(str(moves)),
                str(look),
                str(carried),
            )
        java.drop(maker)


def test_a_killed_jvm_is_replaced_without_effect(machine: Simulator) -> None:
    alone = {which: walk(machine, which) for which in (PAINT, LIVES)}
    games = {which: machine.begin(*which)[0] for which in alone}
    starts = machine.starts
    for k in range(10):
        if k == 5:
            assert machine.process is not None
            os.kill(machine.process, signal.SIGKILL)
        for which, game in games.items():
            assert machine.act(game, way(machine, which)[k]) == alone[which][k + 1]
    assert machine.starts == starts + 1


def test_a_machine_that_dies_twice_at_the_same_place_ends_the_episode(
    machine: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    game, _, _ = machine.begin(*LIVES)
    there = len(game.actions)

    def die(self: Simulator, game: Game, place: Place, action: str) -> None:
        place.java.process.kill()
        place.java.call(self._maker, "getScore")

    monkeypatch.setattr(Simulator, "_step", die)
    nowhere = Ref("nowhere")
    monkeypatch.setattr(
        Simulator, "_rebuild", lambda self, java, _: Place(java, nowhere, nowhere, "")
    )
    with pytest.raises(EnvError, match=r"failed twice at the same place .*set env.options.heap"):
        machine.act(game, "look around")
    monkeypatch.undo()
    game.place = None
    assert len(game.actions) == there
    assert machine.act(game, "look around").text


def test_a_full_heap_is_a_reason_for_another_machine(
    machine: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = walk(machine, LIVES)
    game, _, _ = machine.begin(*LIVES)
    starts = machine.starts
    monkeypatch.setattr(simulator, "GAMES", 1)
    machine.begin(*LIVES)
    assert machine.starts == starts
    monkeypatch.setattr(simulator, "FULL", 0.0)
    machine.begin(*LIVES)
    assert machine.starts == starts + 1
    assert machine.act(game, way(machine, LIVES)[0]) == expected[1]


def test_games_that_are_over_leave_nothing_in_the_machine(machine: Simulator) -> None:
    saved = machine.begin(*LIVES)[0]
    machine.begin(*LIVES)[0].end()
    machine.begin(*LIVES)  # lost without an end
    machine.act(saved, "look around")
    assert len(machine._freed) == 1
    lost = machine._freed[0].world
    with machine as java:
        machine._relieve()
        assert not machine._freed
        with pytest.raises(Thrown, match="does not exist"):
            java.call(lost, "getCurIterations")
        assert saved.place is not None
        assert java.call(saved.place.world, "getCurIterations") == 0


def test_java_exceptions_are_reported(machine: Simulator) -> None:
    with machine as java:
        with pytest.raises(Thrown, match="NumberFormatException"):
            java.call("z:java.lang.Integer", "parseInt", "seven")
        with pytest.raises(Gone, match="OutOfMemoryError: full"):
            raise java._thrown(java.new("java.lang.OutOfMemoryError", "full"))
        with pytest.raises(Thrown, match="an object was expected, and 7 came"):
            ref(java.call("z:java.lang.Integer", "parseInt", "7"))
        for text in ("a\\n\n\r\\b", "", "日本語 \\"):
            assert java.call(java.new("java.lang.StringBuilder", text), "toString") == text
        assert java.call("z:java.lang.Math", "abs", -(2**40)) == 2**40
    with pytest.raises(EnvError, match="could not set up find-animal 4000"):
        machine.begin("find-animal", 4000, "")
    assert machine.begin("find-animal", 0, "")[2].text


def test_a_machine_that_hangs_is_given_up() -> None:
    bridge, jar = simulator.files()
    java = Java(("-Xmx64m",), (bridge,), jar.parent, deadline=1.0)
    with pytest.raises(Late, match="no answer within 1 s"):
        java.call("z:java.lang.Thread", "sleep", 2**33)
    assert not java.alive
    with pytest.raises(Gone, match="it was ended"):
        java.call("z:java.lang.Math", "abs", 1)


def test_a_machine_that_cannot_be_asked_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its program says a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/process\necho {port}\necho token\nexec sleep 600\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=f"cannot be asked .*127.0.0.1, port {port}"):
        Java((), (), tmp_path, deadline=5.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "process").read_text()), 0)


def test_a_machine_that_was_ended_keeps_no_connection() -> None:
    bridge, jar = simulator.files()
    java = Java(("-Xmx64m",), (bridge,), jar.parent, deadline=30.0)
    java.end()
    assert java._socket.fileno() == -1
    with pytest.raises(Gone):
        java.call("z:java.lang.System", "nanoTime")


def test_a_machine_that_does_not_start_says_why() -> None:
    bridge, jar = simulator.files()
    with pytest.raises(ConfigError, match=r"Java did not start .*Invalid maximum heap size"):
        Java(("-Xmxlots",), (bridge,), jar.parent, deadline=1.0)


def test_objects_are_hashed_by_their_numbers(tmp_path: Path) -> None:
    _, jar = simulator.files()
    overlay(jar, tmp_path)
    result = next(tmp_path.rglob("*.class")).read_bytes()
    assert b"hashCode" in result
    for wrong in (b"PK\x05\x06" + bytes(18), b"", jar.read_bytes()[:100_000], None):
        (tmp_path / "no.jar").unlink(missing_ok=True)
        if wrong is not None:
            (tmp_path / "no.jar").write_bytes(wrong)
        with pytest.raises(EnvError, match=r"not a simulator .*; install scienceworld 1\.2\.3"):
            overlay(tmp_path / "no.jar", tmp_path)
    with pytest.raises(Exception, match="unknown tag"):
        numbered(bytes(9) + b"\x05" + b"\x63" * 20)


def test_another_process_sees_the_same_and_takes_its_machine_with_it(machine: Simulator) -> None:
    code = (
        "from tutelage_worlds.scienceworld.simulator import simulator\n"
        "import sys, time\n"
        "s = simulator(512)\n"
        f"g, d, shown = s.begin(*{LIVES!r})\n"
        f"for action in {way(machine, LIVES)!r}: shown = s.act(g, action)\n"
        "print(s.process, repr(tuple(shown)), flush=True)\n"
        "time.sleep(600)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"},
    )
    assert child.stdout is not None
    process, _, text = child.stdout.readline().partition(" ")
    child.kill()
    child.wait()
    child.stdout.close()
    assert text.strip() == repr(tuple(walk(machine, LIVES)[-1]))
    until = time.monotonic() + 60
    while _lives(int(process)):
        assert time.monotonic() < until, "the machine outlived its process"
        time.sleep(0.05)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_it_plays_in_worker_processes() -> None:
    suite = ScienceWorld(families="lifespan", simplify="easy")
    tasks = suite.tasks("dev")[:2]
    pool = ProcessPool(suite, workers=1, reset_seconds=300.0, step_seconds=300.0)
    try:
        for task in tasks:
            pool.open(task.id, task)
        opened = dict(pool.poll(block=True))
        for task in tasks:
            pool.act(task.id, "go to kitchen")
        seen = {**dict(pool.poll(block=True))}
    finally:
        pool.shutdown()
    for task in tasks:
        assert not isinstance(opened[task.id], Failure), opened[task.id]
        assert isinstance(seen[task.id], Observation)
        env = suite.make()
        assert env.reset(task) == opened[task.id]
        assert env.step("go to kitchen") == seen[task.id]
