"""Runs whose student is sampled on servers: several share the episodes, adapters arrive merged, each
rank has servers of its own, and a server that lost its weights is given them again."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.test_remote_runs import GRPO, SHAPE, alike, metrics, policies_of, weights
from runs.test_remote_runs import config as remote_config
from support.fake_servers import serving
from support.gangs import Gang
from support.tiny_models import policy
from support.tiny_runs import Quiet

from tutelage.config.schema import Config
from tutelage.envs.owned_folder import OWNER, PREFIX, remove_left
from tutelage.errors import PolicyError, RunError
from tutelage.policies.hf.lora import weights as merged_weights
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.http import RequestOptions
from tutelage.policies.server.serve import Server
from tutelage.policies.server.weight_folder import SHARED_MEMORY
from tutelage.rollout.ranks import Ranks
from tutelage.runs import hosted_policies, train


def config(folder: Path, urls: object = None, **sections: Any) -> Config:
    sampler = {} if urls is None else {"sampler": {"url": urls}}
    return remote_config(
        folder,
        algorithm=GRPO,
        policies={},
        policy={**SHAPE, **sampler},
        run={"steps": 2},
        env={"suite": "doors"},
        **sections,
    )


def student(settings: Config) -> HFPolicy:
    found = policies_of(settings)["self"]
    assert isinstance(found, HFPolicy)
    return found


@contextlib.contextmanager
def servers(settings: Config, count: int) -> Iterator[tuple[list[HFPolicy], list[str]]]:
    """So many servers of the student as it starts, which take new weights; and their addresses."""
    with opened_servers(settings, count) as (copies, _, urls):
        yield copies, urls


@contextlib.contextmanager
def opened_servers(
    settings: Config, count: int
) -> Iterator[tuple[list[HFPolicy], list[Server], list[str]]]:
    with contextlib.ExitStack() as stack:
        copies = [student(settings) for _ in range(count)]
        opened = [stack.enter_context(serving(of, reload=True)) for of in copies]
        yield copies, opened, [f"http://127.0.0.1:{server.port}" for server in opened]


def tokens(folder: Path) -> list[list[list[int]]]:
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    return [[turn["tokens"] for turn in json.loads(line)["turns"]] for line in lines]


def test_two_servers_sample_what_one_does(tmp_path: Path) -> None:
    start = config(tmp_path / "here")
    with servers(start, 1) as (_, one), servers(start, 2) as (copies, two):
        before = [{k: v.clone() for k, v in of.model.state_dict().items()} for of in copies]
        train.train(config(tmp_path / "one", one[0]), watch=Quiet())
        train.train(config(tmp_path / "two", two), watch=Quiet())
        for of, old in zip(copies, before, strict=True):
            assert not alike(of.model.state_dict(), old, 1e-6), "it was given no weights"
    assert tokens(tmp_path / "two") == tokens(tmp_path / "one")
    assert alike(weights(tmp_path / "two"), weights(tmp_path / "one"), 1e-4)


def test_an_episode_stays_with_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.policies.server.vllm_server import ServerSampler

    places: dict[str, set[str]] = {}
    submit = ServerSampler.submit

    def noted(self: ServerSampler, request: Any) -> None:
        places.setdefault(request.key, set()).add(self.name)
        submit(self, request)

    monkeypatch.setattr(ServerSampler, "submit", noted)
    with servers(config(tmp_path / "here"), 2) as (_, urls):
        train.train(config(tmp_path / "two", urls), watch=Quiet())
    assert all(len(names) == 1 for names in places.values())
    names = {name for place in places.values() for name in place}
    assert names == {"policy.sampler.url[0]", "policy.sampler.url[1]"}


def test_a_rate_that_changes_nothing_leaves_no_gap(tmp_path: Path) -> None:
    with servers(config(tmp_path / "here"), 1) as (_, urls):
        settings = config(tmp_path / "still", urls, update={"lr": 1e-30})
        train.train(settings, watch=Quiet())
    for line in metrics(tmp_path / "still"):
        assert line["mismatch"]["max"] < 1e-5
        assert line["means"]["importance"] == pytest.approx(1.0, abs=1e-5)


def test_adapters_reach_a_server_merged_into_their_base(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = config(tmp_path / "base")
    (tmp_path / "model").mkdir()
    student(base).save(tmp_path / "model")
    with servers(base, 1) as ((server,), urls):
        before = {k: v.clone() for k, v in server.model.state_dict().items()}
        table = config(tmp_path / "lora").model_dump()
        adapted = {"model": str(tmp_path / "model"), "lora": 2, "sampler": {"url": urls[0]}}
        settings = Config.model_validate({**table, "policy": adapted})
        train.train(settings, watch=Quiet())
        assert not alike(server.model.state_dict(), before, 1e-6)
    for line in metrics(tmp_path / "lora"):
        assert line["mismatch"]["max"] < 1e-4


def test_merged_weights_compute_what_the_adapters_do() -> None:
    pytest.importorskip("peft")
    from tutelage.policies.hf.lora import Adapters

    of, plain = policy(0), policy(0)
    Adapters(of.model, rank=2, base="x", seed=0)
    with torch.no_grad():
        for name, x in of.model.named_parameters():
            if "lora_B" in name:  # zero at first
                x.normal_(generator=torch.Generator().manual_seed(1))
    found = dict(merged_weights(of.model))
    assert found.keys() == plain.model.state_dict().keys()
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        expected = of.model(ids).logits
        apart = float((plain.model(ids).logits - expected).abs().max())
        plain.model.load_state_dict(found)
        torch.testing.assert_close(plain.model(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert apart > 1e-2


class Loses(Quiet):
    """Once episodes are played, the server has the weights `first` again: as one that was started
    again, or as one whose weights somebody changed without a word, so that it tells their name."""

    def __init__(self, of: HFPolicy, server: Server, *, tells: bool, times: int = 1) -> None:
        self.of, self.endpoints, self.tells, self.left = of, server.endpoints, tells, times
        chance = torch.Generator().manual_seed(0)
        self.first = {
            k: v + 0.5 * torch.randn(v.shape, generator=chance)
            for k, v in of.model.state_dict().items()
        }
        self.printed: list[str] = []

    def playing(self, done: int, total: int) -> None:
        if self.left:
            self.left -= 1
            self.of.model.load_state_dict(self.first)
            self.of.refresh()
            if self.tells:
                self.endpoints.weight_version = "default"

    def warned(self, sentence: object) -> None:
        self.printed.append(str(sentence))


ONE_BY_ONE = {"rollout": {"concurrency": 1}}


def test_a_server_that_was_started_again_is_given_the_weights_again(tmp_path: Path) -> None:
    with opened_servers(config(tmp_path / "here"), 1) as ((of,), (server,), urls):
        train.train(config(tmp_path / "calm", urls, **ONE_BY_ONE), watch=Quiet())
        watch = Loses(of, server, tells=True)
        train.train(config(tmp_path / "run", urls, **ONE_BY_ONE), watch=watch)
    assert watch.left == 0
    assert any("had lost its weights" in line for line in watch.printed), watch.printed
    assert tokens(tmp_path / "run") == tokens(tmp_path / "calm")
    assert alike(weights(tmp_path / "run"), weights(tmp_path / "calm"), 1e-6)


def test_a_server_that_loses_them_again_and_again_ends_the_run(tmp_path: Path) -> None:
    with opened_servers(config(tmp_path / "here"), 1) as ((of,), (server,), urls):
        watch = Loses(of, server, tells=True, times=99)
        more = {"rollout": {"concurrency": 1, "tasks_per_step": 4}}
        settings = config(tmp_path / "run", urls, **more)
        with pytest.raises(PolicyError, match=r"lost its weights 4 times .* servers of its own"):
            train.train(settings, watch=watch)


def test_a_server_that_lost_its_weights_without_a_word_stops_the_run(tmp_path: Path) -> None:
    with opened_servers(config(tmp_path / "here"), 1) as ((of,), (server,), urls):
        settings = config(tmp_path / "run", urls, **ONE_BY_ONE)
        with pytest.raises(RunError, match=r"in step 0 .*policy\.sampler\.max_mismatch"):
            train.train(settings, watch=Loses(of, server, tells=False))


def test_a_server_that_knows_no_names_of_weights_still_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_servers(config(tmp_path / "here"), 1) as (_, (server,), urls):
        train.train(config(tmp_path / "named", urls), watch=Quiet())
        assert server.endpoints.weight_version != "default"
        del server.endpoints.post["/update_weight_version"], server.endpoints.get["/weight_info"]
        train.train(config(tmp_path / "older", urls), watch=Quiet())
    assert tokens(tmp_path / "older") == tokens(tmp_path / "named")


def test_a_server_that_cannot_clear_its_cache_is_refused(tmp_path: Path) -> None:
    with opened_servers(config(tmp_path / "here"), 1) as (_, (server,), urls):
        server.endpoints.post["/reset_prefix_cache"] = lambda body: {"success": False}
        with pytest.raises(PolicyError, match="could not load the weights: it cannot clear its"):
            train.train(config(tmp_path / "run", urls), watch=Quiet())


def test_a_server_that_computes_in_another_dtype_is_refused(tmp_path: Path) -> None:
    """By the comparison of sampled tokens: the probe leaves room for other kernels."""
    start = config(tmp_path / "here")
    shaken = student(start)
    with torch.no_grad():
        for p in shaken.model.parameters():
            p.mul_(8.0)
    shaken.save(tmp_path / "start")
    rounded = HFPolicy.load(str(tmp_path / "start"), device="cpu", dtype="bfloat16")
    with serving(rounded, reload=True) as server:
        settings = config(tmp_path / "run", f"http://127.0.0.1:{server.port}")
        own = settings.policy.model_copy(update={"model": str(tmp_path / "start"), "build": None})
        with pytest.raises(PolicyError, match="serve the student's own model with --dtype float32"):
            train.train(settings.model_copy(update={"policy": own}), watch=Quiet())


def test_a_server_that_is_not_there_is_named_by_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hosted_policies, "RequestOptions", lambda seed: RequestOptions(retries=0, seed=seed)
    )
    with pytest.raises(PolicyError, match=r"server of policy\.sampler .* policy\.sampler\.url"):
        train.train(config(tmp_path / "run", "http://127.0.0.1:9"), watch=Quiet())


def job(settings: Config) -> Callable[[Ranks], None]:
    return lambda ranks: train.train(settings, watch=Quiet(), ranks=ranks)  # type: ignore[return-value]


def test_each_rank_has_servers_of_its_own(tmp_path: Path) -> None:
    more = {"rollout": {"tasks_per_step": 2}}
    with servers(config(tmp_path / "here"), 2) as (_, urls):
        train.train(config(tmp_path / "one", urls, **more), watch=Quiet())
        ended = Gang(2, job(config(tmp_path / "two", urls, **more)), tmp_path).wait()
        assert [e.code for e in ended] == [0, 0], ended
        assert tokens(tmp_path / "two") == tokens(tmp_path / "one")
        assert alike(weights(tmp_path / "two"), weights(tmp_path / "one"), 1e-4)
        ended = Gang(2, job(config(tmp_path / "few", urls[:1], **more)), tmp_path).wait()
    assert [e.code for e in ended] == [2, 2]
    assert "2 ranks but 1 in policy.sampler.url" in ended[0].message


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux says who holds a file")
def test_the_folder_of_a_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    """It lies in memory; that of a run that lives stays."""
    root = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())

    def begun(name: str, url: str) -> tuple[Gang, Path]:
        before = {*root.glob(f"{PREFIX}*")}
        settings = config(tmp_path / name, url)
        forever = settings.run.model_copy(update={"steps": 10**6})
        gang = Gang(1, job(settings.model_copy(update={"run": forever})), tmp_path / f"of-{name}")
        until = time.monotonic() + 300
        while not (tmp_path / name / "metrics.jsonl").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        own = {path.parent for path in root.glob(f"{PREFIX}*/model.safetensors")} - before
        # files that other programs have there
        (folder,) = (f for f in own if gang.children[0] in holders(f / OWNER))
        return gang, folder

    with servers(config(tmp_path / "here"), 3) as (_, urls):
        killed, left = begun("killed", urls[0])
        living, own = begun("living", urls[1])
        try:
            killed.kill(0)
            killed.wait()
            train.train(config(tmp_path / "next", urls[2]), watch=Quiet())
            assert not left.exists()
            assert own.is_dir()
        finally:
            living.kill(0)
            living.wait()
    remove_left(root)
    assert not own.exists()


def holders(path: Path) -> set[int]:
    """The processes that have a file open."""
    found = set()
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if handle.samefile(path):
                found.add(int(handle.parts[2]))
    return found


@pytest.mark.parametrize("urls", [[], [""], ["http://a", "http://a"], ["http://a", ""]])
def test_a_list_of_servers_names_each_once(urls: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="list each server once"):
        config(tmp_path, urls)
