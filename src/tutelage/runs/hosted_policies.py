"""From sections with `servers` to policies behind servers that Ray started."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tutelage.config.schema import Config, PolicySection
from tutelage.envs.spread import joined
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.hosted import SAMPLER, Hosted, HostedClient, place_of
from tutelage.policies.server.hosted_sampler import HostedSampler
from tutelage.policies.server.http import RequestOptions
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import Sampler, begin
from tutelage.seeding import seed_of


def options_of(where: str, seed: int) -> RequestOptions:
    """How a run's servers are asked; the jitter of pauses follows from its seed."""
    return RequestOptions(seed=seed_of("jitter", where, seed) % 2**31)


def begin_teacher(section: PolicySection, folder: str, *, where: str) -> None:
    """Let the server of a further model start, without waiting for it: who opens its policy does, and
    is told what went wrong."""
    _teacher(section, folder, where=where).begin()


def teacher_client(section: PolicySection, folder: str, *, where: str, seed: int) -> HostedClient:
    """Asks this rank's server of a further model, which loads it from a folder or a hub id.

    Raises ConfigError where no cluster holds one, and PolicyError where it cannot be started.
    """
    hosted = _teacher(section, folder, where=where)
    return HostedClient(hosted, name=where, options=options_of(where, seed))


def _teacher(section: PolicySection, folder: str, *, where: str) -> Hosted:
    place = place_of(where)
    return Hosted(
        place=place,
        actor=place.actors[where][0],
        name=where,
        arguments=[folder, f"--dtype={section.dtype}", f"--device={section.device}"],
    )


def weights_parent(config: Config) -> str:
    """Where the folder is made through which weights are handed to servers that Ray started: in
    memory ("") only where all nodes are on one machine, else beside the run's own folder, which all
    of them see."""
    sampler = config.policy.sampler
    assert sampler is not None
    if sampler.folder or not sampler.servers or place_of(SAMPLER).shared:
        return sampler.folder
    parent = Path(config.run.folder).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return str(parent)


def samplers(student: HFPolicy, folder: Path, *, device: str, seed: int) -> list[Sampler]:
    """This rank's servers that sample the student. They start from a folder that always holds the
    weights of the last hand-over."""
    place = place_of(SAMPLER)
    begin(student, folder)
    shown = "cpu" if device == "cpu" else "auto"
    arguments = [str(folder), f"--dtype={student.dtype}", f"--device={shown}", "--reload"]
    started = [
        Hosted(place=place, actor=actor, name=actor, arguments=arguments)
        for actor in place.actors[SAMPLER]
    ]
    joined(place.address, place.namespace)
    with ThreadPoolExecutor(len(started)) as pool:  # they load their models at the same time
        return list(pool.map(lambda hosted: _sampler(student, hosted, seed), started))


def _sampler(student: HFPolicy, hosted: Hosted, seed: int) -> Sampler:
    client = HostedClient(hosted, name="policy", options=options_of("policy", seed))
    remote = RemotePolicy(client, student.chat, returns_temperature_scaled=True)
    remote.connect()
    return HostedSampler(remote, client, dtype=student.dtype)
