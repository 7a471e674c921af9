"""`tutelage plan`: its simulation of steps on more cards, its output, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_runs import TEACHER, tiny_file

from tutelage.cli import plan
from tutelage.cli.bench import Probe, Size
from tutelage.cli.main import main
from tutelage.cli.model_sizes import Shape
from tutelage.cli.planned_memory import Model, divided_memory, memory_of
from tutelage.cli.step_simulation import (
    Layers,
    Links,
    Rates,
    Times,
    Work,
    rates,
    rounds,
    simulate,
)
from tutelage.config.schema import PolicySection

SMOLLM2 = Shape(
    vocab=49_152,
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    ffn=1536,
    context=8192,
    tied=True,
)
LINKS = Links(inside=4e9, between=1e9, latency=0.0)
EVEN = ((Size(turns=2, sampled=10, read=100),) * 2,)
"""One measured group of two equal episodes."""


def rated(groups: tuple[tuple[Size, ...], ...]) -> Rates:
    return Rates(
        round=0.1,
        token=0.01,
        turn=0.5,
        prompt=0.001,
        layout=0.002,
        teacher=0.01,
        update=0.02,
        optimizer=3.0,
        rest=0.25,
        sent=0.0,
        unpack=0.0,
        groups=groups,
    )


def work(ranks: int, groups: int = 4, minibatches: int = 1, epochs: int = 1) -> Work:
    return Work(
        ranks=ranks,
        groups=groups,
        slots=4,
        minibatches=minibatches,
        epochs=epochs,
        trained=1_000_000_000,
        views=1,
    )


def test_one_card_takes_the_sum_of_its_phases() -> None:
    found = simulate(rated(EVEN), work(1, minibatches=2, epochs=3), LINKS)
    assert found.phases == pytest.approx(
        {
            "generate": 0.1 * 20 + 0.01 * 80,  # 8 episodes of 10 tokens in 4 slots
            "environment": 0.5 * 16,
            "prompts": 0.003 * 800,
            "teacher": 0.01 * 800,
            "update": 0.02 * 800,
            "optimizer": 3.0 * 6,
            "exchange": 0.0,
            "waiting": 0.0,
            "rest": 0.25 * 8,
        }
    )
    assert found.least == pytest.approx(found.most)
    assert found.bottleneck == "optimizer"


def test_one_step_ahead_takes_the_longer_of_playing_and_learning() -> None:
    phases = {"generate": 2.0, "environment": 1.0, "teacher": 0.5, "update": 1.5}
    text = plan.overlapped(Times(phases=phases, least=5.0, most=5.0, episodes=8.0))
    assert "3 of the 5 seconds" in text
    assert "it takes 3 at best" in text
    assert "it takes 4 at best" in plan.overlapped(
        Times(phases={**phases, "update": 3.5}, least=7.0, most=7.0, episodes=8.0)
    )


def test_a_second_card_halves_what_it_shares_and_adds_the_gradients() -> None:
    one, two = (simulate(rated(EVEN), work(n), LINKS).phases for n in (1, 2))
    for name in ("environment", "teacher", "update", "rest"):
        assert two[name] == pytest.approx(one[name] / 2)
    assert two["generate"] == pytest.approx(0.1 * 10 + 0.01 * 40)
    assert two["prompts"] == pytest.approx(0.001 * 400 + 0.002 * 800)  # all lay out the step
    assert two["optimizer"] == one["optimizer"]
    # 2 (n - 1) / n of 4 GB at 4 GB/s; and half of the scores: 16 bytes of 80 tokens
    assert two["exchange"] == pytest.approx(1.0 + 16 * 80 / 2 / 4e9)
    assert two["waiting"] == 0.0


def test_divided_layers_are_gathered_twice_for_every_pass() -> None:
    layers = Layers(count=900_000_000, trained=900_000_000, size=2, whole=4, tokens=150, views=2)
    whole = simulate(rated(EVEN), work(2), LINKS).phases["exchange"]
    split = simulate(rated(EVEN), replace(work(2), divided=layers), LINKS).phases["exchange"]
    # half of 3.6 GB is gathered once, and less is summed; 400 tokens of a rank are 3 passes of 2
    # views, of 2 times half of 1.8 GB, and half of 3.6 GB of gradients
    assert split - whole == pytest.approx(1.8 / 4 - 3.6 / 4 + 6 * (1.8 + 1.8) / 4)


def test_divided_memory_is_that_of_rows() -> None:
    """SmolLM2's shape: everything but the rows is whole while episodes are played, and the layers
    are rows alone in the update."""
    shape, section = SMOLLM2, PolicySection(model="any")
    linear = shape.linear()
    student = Model(
        name="student",
        source="any",
        shape=shape,
        weights=4 * shape.parameters(),
        moments=8 * shape.parameters(),
        update=4 * shape.parameters() + 1_000_000_000,
        cache=0,
    )
    one, four = (divided_memory([student], shape, section, n) for n in (1, 4))
    assert one == memory_of([student])
    assert four == pytest.approx(one - 16 * linear * 3 / 4)
    never = divided_memory([student], shape, section, 4, always=True)
    rows = four
    assert never == rows  # the update is the larger part of both
    lora = PolicySection(model="any", lora=8)
    adapted = replace(student, moments=0, update=1_000_000_000)
    one, four = (divided_memory([adapted], shape, lora, n) for n in (1, 4))
    assert four == pytest.approx(one - 4 * linear * 3 / 4)
    cached = replace(student, cache=10_000_000_000)
    playing = divided_memory([cached], shape, section, 4)
    assert playing == pytest.approx(
        12 * shape.parameters() - 8 * linear * 3 / 4 + 4 * linear / 4 + 10_000_000_000
    )
    # servers play: no cache, no whole weights, and of a reference a quarter of the layers
    reference = replace(student, moments=0, update=0)
    whole, never = (
        divided_memory([cached, reference], shape, section, 4, always=always)
        for always in (False, True)
    )
    assert whole == pytest.approx(playing + 4 * shape.parameters())
    assert never == pytest.approx(rows + 4 * shape.parameters() - 4 * linear * 3 / 4)


def test_machines_share_their_network() -> None:
    assert LINKS.all_reduce(8, 8e9) == pytest.approx(2 * 7 / 8 * 8e9 / 4e9)
    assert LINKS.all_reduce(16, 8e9) == pytest.approx(2 * 15 / 16 * 8e9 / 1e9)
    assert LINKS.all_reduce(1, 8e9) == LINKS.all_gather(1, 8e9) == 0.0


def test_ranks_wait_for_the_longest_episodes() -> None:
    """Groups of one episode, of which every second is ten times as long, on as many ranks."""
    short, long = Size(turns=1, sampled=10, read=10), Size(turns=10, sampled=100, read=100)
    found = simulate(rated(((short,), (long,))), work(32, groups=32), LINKS)
    mean = (0.11 * 55) + 0.5 * 5.5 + 0.001 * 55
    longest = 0.11 * 100 + 0.5 * 10 + 0.001 * 100
    scored = (0.01 + 0.02) * (100 - 55)
    # of 32 drawn about half are long
    assert found.phases["waiting"] == pytest.approx(longest - mean + scored, rel=0.1)
    same = simulate(rated(((short,), (long,))), work(32, groups=32), LINKS)
    assert same == found


def test_two_sizes_tell_a_decode_round_from_its_tokens() -> None:
    def probe(episodes: int) -> Probe:
        played = (tuple(Size(turns=1, sampled=20, read=50) for _ in range(episodes)),)
        cost = 0.1 * rounds(played[0], 4) + 0.01 * 20 * episodes
        seconds = {"generate": cost, "environment": 2.0, "prompts": 3.0, "update": 7.0}
        return Probe(
            groups=tuple(tuple(Size(turns=2, sampled=40, read=100) for _ in g) for g in played),
            played=played,
            seconds=seconds,
            laid_out=1.0,
            optimizer=0.5,
            steps=4,
            rest=1.0,
            sent=100 * episodes,
            unpacking=0.1,
        )

    found = rates([probe(2), probe(8)], 4)
    assert (found.round, found.token) == (pytest.approx(0.1), pytest.approx(0.01))
    assert found.update == pytest.approx((7.0 - 4 * 0.5) / 400)  # without the optimiser's steps
    assert found.prompt == pytest.approx(2.0 / 400)
    assert found.layout == pytest.approx(1.0 / 400)
    assert found.teacher == 0.0
    assert found.sent == pytest.approx(200.0)  # full episodes are twice as long
    assert rates([probe(8)], 4).round == 0.0


FILE = tiny_file(
    rollout={"tasks_per_step": 3, "group_size": 2, "concurrency": 2},
    algorithm={"name": "opd"},
    update={"lr": 3e-3},
    policies=TEACHER,
)


def test_a_file_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "my.toml").write_text(FILE)
    assert main(["plan", "my.toml", "--seconds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(x["cards"], x["grown"], x["groups"]) for x in found["layouts"]] == [
        *((1, False, 3), (2, False, 3), (2, True, 6), (8, True, 24), (64, True, 192)),
        (512, True, 1536),
    ]
    one = found["layouts"][0]
    assert one["seconds"] == pytest.approx(sum(one["phases"].values()))
    assert one["efficiency"] == 1.0
    assert one["divided_memory"] is None
    for more in found["layouts"][1:]:
        assert 0 < more["divided_memory"] <= more["memory"]
        assert more["divided_seconds"] > more["seconds"] - more["phases"]["exchange"]
    assert one["phases"]["exchange"] == one["phases"]["waiting"] == 0.0
    assert {"generate", "teacher", "update", "optimizer"} <= {
        k for k, v in one["phases"].items() if v
    }
    assert [m["name"] for m in found["models"]] == ["student", "teacher"]
    assert main(["plan", "my.toml", "--seconds", "0.01", "--gpu", "80", "--link", "300"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("Memory of a card: about ")
    for words in (
        "of 80.0 GB of GPU memory",
        "A second card: ",
        "Simulated, where:",
        "300 GB/s",
        "--sharded",
    ):
        assert words in output
    assert list(tmp_path.iterdir()) == [tmp_path / "my.toml"]  # nothing is written


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["my.toml", "--seconds", "0"], "--seconds must be above 0, got 0"),
        (["my.toml", "--seconds", "nan"], "--seconds must be above 0, got nan"),
        (["my.toml", "--seconds", "inf"], "--seconds must be above 0, got inf"),
        (["none.toml"], "none.toml"),
        (["my.toml", "rollout.turns=3"], "rollout"),
        (["my.toml", "rollout.tasks_per_step=100000"], "has 9 tasks; ask for fewer"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(
    given: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(FILE)
    assert main(["plan", *given]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


@pytest.mark.parametrize("option", ["--link", "--network", "--gpu"])
def test_a_rate_that_is_no_number_is_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "my.toml", option, "fast"])
    assert "'fast' is not a number of GB" in capsys.readouterr().err


def test_a_dry_run_refers_to_the_plan_for_divided_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(FILE)
    assert main(["train", "my.toml", "--dry-run", "--sharded"]) == 2
    assert "leave --sharded out, or see `tutelage plan`" in capsys.readouterr().err
