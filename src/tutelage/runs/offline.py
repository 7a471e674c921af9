"""Playing without learning: evaluations of trained and given models, and episodes to imitate."""

import contextlib
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tutelage.algorithms.sft import sft
from tutelage.config.schema import Config
from tutelage.envs.base import Demonstrates, Suite
from tutelage.envs.guard import attempt
from tutelage.errors import ConfigError, RunError, did_you_mean
from tutelage.evaluation.evaluate import Evaluation, Known, evaluate, named
from tutelage.evaluation.panels import NamedPanel, chosen
from tutelage.objective import Algorithm, View
from tutelage.policies.base import Aligns
from tutelage.policies.translated import account_lines
from tutelage.prompts.prompter import Reader
from tutelage.rollout.disk import move_to_new, reason, refuse_existing, remove
from tutelage.rollout.hint_preparation import Hinter, prove, sample
from tutelage.rollout.play import play
from tutelage.rollout.record import Log, episode_line
from tutelage.rollout.session import Session
from tutelage.runs import checkpoint
from tutelage.runs.assemble import Parts, Tick, assemble, deterministic, tasks_of
from tutelage.runs.folder import CONFIG
from tutelage.schedules import constant
from tutelage.seeding import seed_of
from tutelage.types import EXPERT, Episode, Turn

STUDENT = "student"


def trained(where: Path, name: str = "") -> str:
    """The folder of a run's checkpoint, the newest if none is named; "" for a TOML file."""
    if not where.is_dir():
        if name:
            raise ConfigError(
                f"--checkpoint {name} is for the folder of a run, and {where} is none; leave it out, "
                "or set policy.model to the checkpoint's folder"
            )
        return ""
    if not (where / CONFIG).exists():
        raise ConfigError(f"{where} is not a run's folder: it has no {CONFIG}")
    there = checkpoint.names(where)
    if not there:
        raise ConfigError(f"{where} has no checkpoint yet")
    if not name:
        newest = checkpoint.latest(where)
        checkpoint.verify(newest)
        return str(newest)
    if name not in there:
        raise ConfigError(
            f"{where} has no checkpoint {name!r}{did_you_mean(name, there)}; it has "
            f"{', '.join(there)}"
        )
    checkpoint.verify(where / checkpoint.FOLDER / name)
    return str(where / checkpoint.FOLDER / name)


@contextlib.contextmanager
def opened(
    parts: Parts,
    *,
    student: str = "",
    others: Collection[str] | None = None,
    own_tokens: bool = True,
    tick: Tick,
) -> Iterator[Session]:
    """A session for playing without learning; the student is always there, as "self". Others play
    in their own tokens, or in the student's."""
    with (
        deterministic(),
        parts.open(student=student, others=others, own_tokens=own_tokens, tick=tick) as (
            session,
            _,
        ),
    ):
        yield replace(session, ready=Hinter(session=session, seed=parts.config.run.seed))


def _known(config: Config, names: Sequence[str], others: Sequence[str]) -> None:
    there = [*others, *config.policies]
    for name in names:
        if name not in there:
            raise ConfigError(
                f"there is no policy {name!r}{did_you_mean(name, there)}; there are "
                f"{', '.join(there)}"
            )


def need_expert(suite: Suite, config: Config) -> None:
    """Raise ConfigError for a suite that has no expert."""
    if not isinstance(suite, Demonstrates):
        raise ConfigError(
            f"the suite {config.env.suite} has no expert: it has no `demonstrate` and `plan` "
            f"methods; evaluate {', '.join([STUDENT, *config.policies])} instead"
        )


class Keeping(Protocol):
    """Where the episodes of an evaluation under way are kept."""

    def finished(self, name: str, repeats: int) -> Mapping[str, Sequence[Known]]: ...
    def add(self, name: str, one: Known) -> None: ...


def evaluations(
    config: Config,
    names: Sequence[str],
    *,
    student: str = "",
    tick: Tick,
    on: NamedPanel | None = None,
    repeats: int = 1,
    keeping: Keeping | None = None,
    ended: Callable[[Known], None] = lambda one: None,
) -> dict[str, Evaluation]:
    """Each named policy alone on the configured panel, and again with the privileged text of
    eval.hint. "student" comes from the folder `student` if that is not empty; "expert" is the
    suite's own, which needs no hint.

    on       a panel by name, instead of the first eval.tasks tasks of eval.split
    repeats  episodes of every task, each with draws of its own
    keeping  keeps episodes as they end, and knows those of before
    ended    called with every episode as it ends
    """
    _known(config, names, [STUDENT, EXPERT])
    parts = assemble(config, learns=False, evaluates=on is None)
    if on is not None:
        tasks = attempt("the reset of an evaluation task", lambda: chosen(parts.suite, on))
        parts = replace(parts, panel=tasks)
    assert parts.panel is not None
    if EXPERT in names:
        need_expert(parts.suite, config)
    others = [name for name in names if name not in (STUDENT, EXPERT)]
    found: dict[str, Evaluation] = {}
    with opened(parts, student=student, others=others, tick=tick) as session:
        hint = config.eval.hint
        prove(session, {"the evaluation": View(hint=hint)}, sample(parts.panel.tasks))
        for name in names:
            for shown in dict.fromkeys(("",) if name == EXPERT else ("", hint)):
                title = named(name, shown)

                def keep(one: Known, title: str = title) -> None:
                    if keeping is not None:
                        keeping.add(title, one)
                    ended(one)

                found[title] = evaluate(
                    session,
                    parts.panel,
                    policy="self" if name in (STUDENT, EXPERT) else name,
                    hint=shown,
                    acting=alone(EXPERT, thoughts=False) if name == EXPERT else None,
                    seed=config.run.seed,
                    temperature=config.eval.temperature,
                    repeats=repeats,
                    known=keeping.finished(title, repeats) if keeping is not None else {},
                    ended=keep,
                )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    played: int
    won: int
    written: int
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by policy


def partial(path: Path) -> Path:
    """Where episodes are until all of a collection are there."""
    return path.with_name(f"{path.name}.partial")


@contextlib.contextmanager
def _whole_or_partial(path: Path) -> Iterator[Log]:
    """A log that becomes `path` when the block ends. After an error its whole lines stay in
    `partial(path)`."""
    draft = partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = Log(draft)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({reason(error)}); choose another --out"
        ) from error
    try:
        yield log
        log.sync()
        log.close()
        move_to_new(draft, path)
    except BaseException as error:
        with contextlib.suppress(RunError):
            log.close()
        count = _cut_to_lines(draft)
        if not isinstance(error, RunError | OSError):
            raise
        left = f"the {count} episodes so far are in {draft}" if count else "nothing was left behind"
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        why = reason(cause) if isinstance(cause, OSError) else str(cause)
        raise RunError(
            f"{path} could not be written ({why}); make room or choose another --out, then do it "
            f"again: {left}"
        ) from error


def _cut_to_lines(path: Path) -> int:
    """Drop a last line that is not whole; the number of those that are. None leave no file."""
    data = path.read_bytes()
    os.truncate(path, data.rfind(b"\n") + 1)
    count = data.count(b"\n")
    if not count:
        remove(path)
    return count


def collect(
    config: Config,
    policy: str,
    path: Path,
    *,
    episodes: int,
    everything: bool,
    thoughts: bool = False,
    student: str = "",
    tick: Tick,
) -> Collected:
    """Let the expert or a policy play tasks of the training split; write the won episodes, or
    with `everything` also the lost ones. They are in `partial(path)` until all are there, and stay
    there when it is interrupted. Raises RunError rather than overwrite a file."""
    _known(config, [policy], [EXPERT, STUDENT])
    for each in (path, partial(path)):
        refuse_existing(each)
    algorithm = alone(policy, thoughts=thoughts)
    parts = assemble(config, learns=False, evaluates=False)
    tasks = tasks_of(parts.suite, config.env.split, 1, where="env")
    order = list(range(min(len(tasks), episodes)))
    if len(tasks) > episodes:
        order = random.Random(seed_of("collect", config.run.seed)).sample(
            range(len(tasks)), episodes
        )
    played = won = written = 0
    others = [] if policy in (EXPERT, STUDENT) else [policy]
    with (
        # in the student's tokens, which is to learn from them
        opened(parts, student=student, others=others, own_tokens=False, tick=tick) as session,
        _whole_or_partial(path) as log,
    ):
        while played < episodes:
            # rounds over the split, each with its own draws, in portions that fit into memory
            lap, at = divmod(played, len(order))
            portion = order[at : at + min(config.rollout.slots, episodes - played)]
            finished = play(
                session, [tasks[i] for i in portion], algorithm, seed=config.run.seed, step=lap
            )
            played += len(portion)
            won += sum(episode.won for episode in finished)
            for episode in finished:
                if episode.won or (everything and not episode.stop.broken):
                    log.write(episode_line(_for_student(session, episode, policy), lap))
                    written += 1
            log.flush()
        costs = account_lines({n: session.policies[n] for n in others})
    return Collected(played=played, won=won, written=written, costs=costs)


def _for_student(session: Session, episode: Episode, policy: str) -> Episode:
    """An episode with the prompts that the student would have had, where whoever played it has
    another tokenizer."""
    if not isinstance(session.policies.get(policy), Aligns):
        return episode
    reader = Reader(prompter=session.prompter(View(), episode.task))
    turns: list[Turn] = []
    for k, turn in enumerate(episode.turns):
        _, new = reader.prompt(episode.turns[:k], turn.observation)
        turns.append(replace(turn, prompt=new, fresh=reader.fresh))
    return replace(episode, turns=tuple(turns))


def alone(policy: str, *, thoughts: bool) -> Algorithm:
    """An algorithm in which one policy takes every turn, or the suite's expert."""
    if thoughts and policy != EXPERT:
        raise ConfigError(f"--thoughts is for the expert; {policy} thinks as it was trained to")
    if policy == EXPERT:
        return sft(source="expert", thoughts=thoughts)
    if policy == STUDENT:
        return Algorithm(terms=())
    return Algorithm(terms=(), views={policy: View(policy=policy)}, actors={policy: constant(1.0)})
