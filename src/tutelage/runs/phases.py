"""The phases of a run, warm start and training: each an algorithm, its steps and learning rate."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from tutelage.algorithms import ALGORITHMS
from tutelage.config.schema import AlgorithmSection, Config, LearningRate
from tutelage.config.signature import call
from tutelage.envs.named_code import named, returns
from tutelage.envs.registry import PYTHON
from tutelage.errors import ConfigError, did_you_mean
from tutelage.hints import Hints, kinds_in
from tutelage.objective import ONE, Algorithm, Reinforce, Signal, View
from tutelage.policies.by_family import parted, sections_of
from tutelage.seeding import seed_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a run: the warm start, or the main algorithm."""

    name: str  # "warm_start" or "train"
    algorithm: Algorithm
    steps: int
    lr: LearningRate
    seed: int  # of everything random in it


def algorithm_of(section: AlgorithmSection, steps: int, *, where: str) -> Algorithm:
    """Call the algorithm's function with the section's other keys as arguments."""
    function = algorithm_function(section.name, where=where)
    algorithm = call(function, section.arguments(), where=where, filled={"total_steps": steps})
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(
            f"{where}.name: {section.name} returned {type(algorithm).__name__}, not an Algorithm"
        )
    algorithm.check_views()
    return algorithm


def algorithm_function(name: str, *, where: str) -> Callable[..., Algorithm]:
    """The function behind an algorithm's name, or behind "package.module:function"."""
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"{where}.name: there is no algorithm {name!r}{did_you_mean(name, ALGORITHMS)}; there "
            f'are {", ".join(ALGORITHMS)}, and your own as "package.module:function"'
        )
    found = named(
        module,
        attribute,
        where=f"{where}.name",
        what="an algorithm",
        declared=lambda x: returns(x, "Algorithm"),
    )
    return cast(Callable[..., Algorithm], found)


def steps_matter(config: Config) -> bool:
    """Whether what happens in a step depends on how many there will be."""
    function = algorithm_function(config.algorithm.name, where="algorithm")
    parameters = inspect.signature(function).parameters
    falls = isinstance(config.update.lr, dict) and any(
        len(values) == 2 for values in config.update.lr.values()
    )
    return "total_steps" in parameters or falls


def phases_of(config: Config) -> list[Phase]:
    """What a run does, in order. A replayed file is imitated, or continued by the student.

    Raises ConfigError for phases that cannot be run with the other settings.
    """
    phases = _phases(config)
    if config.rollout.group_size == 1:
        _check_alone(phases)
    if config.rollout.replay and any(p.algorithm.acting.hinted_share for p in phases):
        raise ConfigError(
            "rollout.replay names episodes to imitate, and a phase's `mixture` imitates hints that "
            "those episodes do not follow; remove mixture, or leave rollout.replay out"
        )
    if config.rollout.replay and not any(p.algorithm.acting.uses_expert for p in phases):
        raise ConfigError(
            "rollout.replay names episodes to imitate, but no phase imitates; set [algorithm] or "
            '[warm_start] name = "sft", or leave rollout.replay out'
        )
    return phases


def compares_groups(config: Config) -> bool:
    """Whether a phase would learn nothing from groups of one episode."""
    try:
        _check_alone(_phases(config))
    except ConfigError:
        return True
    return False


def _phases(config: Config) -> list[Phase]:
    main = algorithm_of(config.algorithm, config.run.steps, where="algorithm")
    seed = config.run.seed
    phases = [
        Phase(name="train", algorithm=main, steps=config.run.steps, lr=config.update.lr, seed=seed)
    ]
    if config.warm_start is not None:
        warm = config.warm_start
        first = Phase(
            name="warm_start",
            algorithm=algorithm_of(warm, warm.steps, where="warm_start"),
            steps=warm.steps,
            lr=warm.lr,
            seed=seed_of("warm_start", seed),
        )
        phases.insert(0, first)
    return phases


def signals_of(algorithm: Algorithm) -> Iterator[Signal]:
    """What multiplies each term: an advantage, or a weight."""
    for term in algorithm.terms:
        yield term.advantage if isinstance(term, Reinforce) else getattr(term, "weight", ONE)


def _check_alone(phases: Sequence[Phase]) -> None:
    """Refuse to compare the episodes of a group with each other where a group holds one."""
    for phase in phases:
        if phase.algorithm.acting.max_batches:
            raise ConfigError(
                "rollout.group_size = 1, but the algorithm learns only from groups whose returns "
                "differ, and those of one episode cannot; set rollout.group_size to at least 2"
            )
        for signal in signals_of(phase.algorithm):
            if signal.compares_group:
                raise ConfigError(
                    f"rollout.group_size = 1, but {signal.name} compares the episodes of a group, "
                    f"and an episode alone teaches nothing; set rollout.group_size to at least 2"
                )


def hints_wanted(config: Config, phases: Sequence[Phase]) -> list[str]:
    """The hints that a run's views and evaluations name."""
    named = {view.hint for p in phases for view in p.algorithm.all_views().values()}
    return sorted({*named, config.eval.hint} - {""})


def acting(config: Config, phases: Sequence[Phase]) -> set[str]:
    """The policies that sample turns in this process and on its memory: "self" is the student."""
    local = {name for name in writers(config, phases) if not _on_server(config, name)}
    return local | (set() if config.policy.sampler is not None else {"self"})


def writers(config: Config, phases: Sequence[Phase]) -> set[str]:
    """The policies besides the student that ever write a token, by section."""
    both = [(p.algorithm.all_views(), p.algorithm.all_actors()) for p in phases]
    named = {views.get(name, View()).policy for views, actors in both for name in actors}
    return {s for name in named - {"self"} for s in sections_of(name, config.policies)}


def engines_of(config: Config, phases: Sequence[Phase]) -> int:
    """Engines that share the memory for keys and values: those of another process that plays ahead
    are as many again."""
    return max(1, len(acting(config, phases))) * (1 + config.rollout.ahead)


def plays_ahead(config: Config, phase: Phase) -> bool:
    """Whether a phase's episodes are played while the step before learns."""
    return config.rollout.ahead > 0 and not phase.algorithm.acting.expert


def refuse_ahead(config: Config, phases: Sequence[Phase], hints: Hints) -> None:
    """Refuse to play one step ahead where that is not possible, or not what it says.

    A step's episodes are then begun before the step before it has learnt. So nothing that they need
    may depend on what that step earned or wrote: skills by UCB, hints of the student. Everything
    else is as before: weights of sampled tokens are corrected by importance, exact divergences need
    no correction at the states that were visited, and who acts depends on the step's number alone.
    """
    setting = "rollout.concurrency has ahead = 1"
    if not any(plays_ahead(config, phase) for phase in phases):
        raise ConfigError(
            f"{setting}, but the expert plays all episodes, which wait for no weights; leave it out"
        )
    if config.env.suite.startswith(PYTHON):
        raise ConfigError(
            f"{setting}, so another process plays, which cannot import the suite that was given in "
            'Python; put it into a module and name it as env.suite = "module:Class", or leave it out'
        )
    if config.policy.sampler is not None and not config.policy.sampler.remote:
        raise ConfigError(
            f"{setting}, and policy.sampler runs vLLM in this process, which plays and evaluates in "
            "turn; start a server and set policy.sampler.url, or leave one of them out"
        )
    if "reference" in writers(config, phases) - set(config.policies):
        raise ConfigError(
            f"{setting}, but the algorithm lets the reference act, a copy of the student that only "
            "the training process has; leave it out"
        )
    for phase in phases:
        for name, view in phase.algorithm.all_views().items():
            if "written" in kinds_in(view.hint) or hints.uses_ucb(view.hint):
                raise ConfigError(
                    f"{setting}, but the hint {view.hint!r} of {name} depends on what the step "
                    "before wrote or earned, which is not known yet; leave it out, or choose "
                    "another hint"
                )


def _on_server(config: Config, name: str) -> bool:
    return name in config.policies and config.policies[name].remote


def policies_wanted(phases: Sequence[Phase], named: Mapping[str, object]) -> set[str]:
    """The policies that views name, besides the student; each must exist or be made.

    `reference` needs no section: it is a copy of the student before the main algorithm.
    """
    wanted = {v.policy for p in phases for v in p.algorithm.views.values()} - {"self"}
    for name in sorted(wanted - set(named) - set(parted(named)) - {"reference"}):
        sections = ", ".join(sorted(named)) or "none"
        raise ConfigError(
            f"the algorithm wants a policy {name!r}, but there is no section [policies.{name}] "
            f"(there are: {sections}); add it with a `model`{did_you_mean(name, named)}"
        )
    if "reference" in {v.policy for v in phases[0].algorithm.views.values()} and len(phases) > 1:
        raise ConfigError(
            "warm_start: its algorithm wants a reference, but that is made after the warm start; "
            "leave its kl at 0"
        )
    return {section for name in wanted for section in sections_of(name, named)}
