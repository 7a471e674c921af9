"""Runs that hand their low-rank adapters alone to servers, which apply them to their own weights as
vLLM does. Those with the real vLLM are in `test_real_vllm_adapters`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs.test_always_divided import job as divided_job
from runs.test_remote_runs import alike, metrics
from runs.test_sampler_runs import config, job, servers, student, tokens
from safetensors.torch import load_file
from support.adapter_server import Adapted, adapted
from support.gangs import Gang
from support.tiny_runs import Quiet

from tutelage.config.schema import Config
from tutelage.errors import PolicyError
from tutelage.runs import train

pytest.importorskip("peft")
ALONE: dict[str, Any] = {"transfer": "adapters"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    student(config(tmp_path / "start")).save(tmp_path / "model")
    return tmp_path / "model"


def adapting(base: Path, name: str, urls: object, transfer: Any = ALONE, **sections: Any) -> Config:
    """A run that trains adapters of rank 2."""
    table = config(base.parent / name, **sections).model_dump()
    policy = {"model": str(base), "lora": 2, "sampler": {"url": urls, **transfer}}
    update = {"lr": 3e-2, **sections.get("update", {})}
    return Config.model_validate(
        {**table, "policy": policy, "update": {**table["update"], **update}}
    )


@contextlib.contextmanager
def opened(base: Path, count: int = 1, **settings: Any) -> Iterator[list[Adapted]]:
    with contextlib.ExitStack() as stack:
        start = config(base.parent / "start")
        yield [
            stack.enter_context(adapted(student(start), base.parent / f"room-{k}", **settings))
            for k in range(count)
        ]


def adapters(folder: Path) -> dict[str, Any]:
    name = (folder / "latest").read_text().strip()
    return load_file(folder / "checkpoints" / name / "adapter_model.safetensors")


def test_a_run_plays_what_it_plays_with_merged_weights(base: Path) -> None:
    with opened(base) as (server,):
        train.train(adapting(base, "alone", server.url), watch=Quiet())
        # compared with visible adapters, then before each of two steps; not after the last
        assert server.asked.count("reset") == 3
    with servers(config(base.parent / "start"), 1) as (_, urls):
        train.train(adapting(base, "merged", urls[0], {}), watch=Quiet())
    assert tokens(base.parent / "alone") == tokens(base.parent / "merged")
    alone, merged = (adapters(base.parent / name) for name in ("alone", "merged"))
    assert alike(alone, merged, 1e-4)
    moved = [float(x.abs().max()) for name, x in alone.items() if ".lora_B" in name]
    assert min(moved) > 1e-3, "nothing was learnt"
    for line in metrics(base.parent / "alone"):
        assert line["mismatch"]["max"] < 1e-4


def test_a_rate_that_changes_nothing_leaves_no_gap(base: Path) -> None:
    with opened(base) as (server,):
        train.train(adapting(base, "still", server.url, update={"lr": 1e-30}), watch=Quiet())
    for line in metrics(base.parent / "still"):
        assert line["mismatch"]["max"] < 1e-5
        assert line["means"]["importance"] == pytest.approx(1.0, abs=1e-5)


class Forgets(Quiet):
    """Once episodes are played, the server has no adapters any more."""

    def __init__(self, server: Adapted, times: int = 1) -> None:
        self.server, self.left, self.printed = server, times, list[str]()

    def playing(self, done: int, total: int) -> None:
        if self.left:
            self.left -= 1
            self.server.forget()

    def warned(self, sentence: object) -> None:
        self.printed.append(str(sentence))


ONE_BY_ONE = {"rollout": {"concurrency": 1}}


@pytest.mark.parametrize("named", [True, False])
def test_a_server_that_was_started_again_is_given_the_adapters_again(
    named: bool, base: Path
) -> None:
    """Also one that takes no names for its weights: it does not know that of the adapters."""
    with opened(base) as (server,):
        if not named:
            del server.own.post["/update_weight_version"], server.own.get["/weight_info"]
        train.train(adapting(base, "calm", server.url, **ONE_BY_ONE), watch=Quiet())
        watch = Forgets(server)
        train.train(adapting(base, "run", server.url, **ONE_BY_ONE), watch=watch)
        before = server.asked.count("load")
        train.train(adapting(base, "third", server.url, **ONE_BY_ONE), watch=Quiet())
        assert server.asked.count("load") - before == 4  # a question and three hand-overs
    assert watch.left == 0
    assert any("had lost its weights" in line for line in watch.printed), watch.printed
    assert tokens(base.parent / "run") == tokens(base.parent / "calm")
    assert alike(adapters(base.parent / "run"), adapters(base.parent / "calm"), 1e-6)


def test_a_server_that_loses_them_again_and_again_ends_the_run(base: Path) -> None:
    with opened(base) as (server,):
        more = {"rollout": {"concurrency": 1, "tasks_per_step": 4}}
        settings = adapting(base, "run", server.url, **more)
        with pytest.raises(PolicyError, match=r"lost its weights 4 times .* servers of its own"):
            train.train(settings, watch=Forgets(server, times=99))


def test_a_cache_that_is_not_cleared_is_what_the_mismatch_shows(base: Path) -> None:
    """The comparison before it does not notice, since prompts are not scored from the cache."""
    with opened(base) as (server,):
        train.train(adapting(base, "cleared", server.url, update={"lr": 1.0}), watch=Quiet())
        server.own.post["/reset_prefix_cache"] = lambda body: {"success": True}
        train.train(adapting(base, "stale", server.url, update={"lr": 1.0}), watch=Quiet())
    cleared, stale = (metrics(base.parent / name)[1] for name in ("cleared", "stale"))
    assert cleared["mismatch"]["max"] < 1e-4
    assert stale["mismatch"]["max"] > 0.01


def test_two_servers_and_two_ranks(base: Path) -> None:
    more = {"rollout": {"tasks_per_step": 2}}
    with opened(base, 2) as both:
        urls = [server.url for server in both]
        train.train(adapting(base, "one", urls[0], **more), watch=Quiet())
        train.train(adapting(base, "two", urls, **more), watch=Quiet())
        ended = Gang(2, job(adapting(base, "ranks", urls, **more)), base.parent / "gang").wait()
        assert [e.code for e in ended] == [0, 0], ended
    one, two, ranks = (base.parent / name for name in ("one", "two", "ranks"))
    assert tokens(one) == tokens(two) == tokens(ranks)
    assert alike(adapters(ranks), adapters(one), 1e-4)


def test_a_base_that_no_rank_holds_whole(base: Path) -> None:
    """Each rank sends its server the adapters, which are whole on every rank."""
    with opened(base, 2) as both:
        urls = [server.url for server in both]
        train.train(adapting(base, "one", urls[0]), watch=Quiet())
        gang = Gang(2, divided_job(adapting(base, "two", urls), "always"), base.parent / "gang")
        ended = gang.wait()
        assert [e.code for e in ended] == [0, 0], ended
    one, two = base.parent / "one", base.parent / "two"
    assert tokens(two) == tokens(one)
    assert alike(adapters(two), adapters(one), 1e-4)
    for line in metrics(two):
        assert line["mismatch"]["max"] < 1e-4
