"""Rung (a): every method on two games whose optimum is known, in seconds.

A method starts from a policy that chooses evenly, is given the kind of information that it is taught
by, and must reach 95 % of the best possible return with every seed.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context

from studies.ladder import bandit
from studies.ladder.tabular import Tabular
from tutelage.config.schema import AlgorithmSection
from tutelage.envs.base import Suite
from tutelage.envs.doors import RULE, Doors
from tutelage.objective import Algorithm, View
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session, context_for
from tutelage.rollout.task_sampling import gather
from tutelage.runs.phases import algorithm_of
from tutelage.runs.trainer import Trainer
from tutelage.schedules import constant

SEEDS = (0, 1, 2)
STEPS = 12
COPIES = 8
RATE = 0.5
BETAS, DECAY = (0.9, 0.999), 0.0
"""Of AdamW: what was recorded was run with them."""
READS = 5.0
"""The logit of what a hint tells above the others': an informed policy is right 98 times in 100."""
WANTED = 0.95
"""Share of the best possible return that counts as learnt."""
MEASURED = 400
"""Episodes of a measurement, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """A suite, the return of its best policy, and the digit that this policy says at each letter."""

    suite: Suite
    optimum: float
    rule: Mapping[str, str]


GAMES = {
    "doors": Game(suite=Doors(), optimum=2.0, rule=RULE),
    "bandit": Game(
        suite=bandit.Bandit(),
        optimum=bandit.OPTIMUM,
        rule={"a": "4", "b": "3", "c": "4", "d": "3"},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a method is run on the ladder. `taught` says by what."""

    taught: str
    settings: Mapping[str, object] = field(default_factory=dict)
    reads: float = READS
    hint: str = ""  # of the measurement: the prompt in which the method's policy acts
    steps: int = STEPS
    rate: float = RATE


REWARD, TEACHER, HINT = "the reward", "a teacher", "a hint"
REWARD_HINT = "the reward and a hint"
COMPOSED = {
    "views": {"teacher": {"policy": "teacher"}},
    "actors": {"teacher": "cosine(1, 0, 0.8 * total_steps)"},
    "terms": {
        "mine": {
            "kind": "reinforce",
            "advantage": "acted_by('student') * (gap() + group_relative())",
            "surrogate": "ppo_clip(0.2, dual=3)",
        },
        "theirs": {
            "kind": "distill",
            "divergence": "forward_kl",
            "weight": "acted_by('teacher')",
        },
    },
}
"""Guided turns, a teacher's gap and the reward in one, from settings alone."""
METHODS: dict[str, Method] = {
    "sft": Method(taught="demonstrations"),
    **{
        name: Method(taught=REWARD)
        for name in ("grpo", "rloo", "dr_grpo", "dapo", "reinforce_pp", "gigpo")
    },
    **{name: Method(taught=TEACHER) for name in ("opd", "vopd", "guided_opd", "adaswitch", "tcod")},
    **{name: Method(taught="the reward and a teacher") for name in ("sod", "atod")},
    "compose": Method(taught="the reward and a teacher", settings=COMPOSED),
    **{
        name: Method(taught=REWARD_HINT, settings={"hint": "plan"})
        for name in (
            "opsd",
            "sdar",
            "grpo_opsd",
            "skill_sd",
            "rlsd",
            "agent_opsd",
            "opid",
            "pcsd",
            "icsd",
        )
    },
    # its hinted policy wins nearly every episode, and the default leaves out groups of equal returns
    "pi_distill": Method(taught=REWARD_HINT, settings={"hint": "plan", "flat_groups": "keep"}),
    # without a reward, the KL to the start weighs as much as the pull, and holds it half-way
    "gated_opsd": Method(taught=HINT, settings={"hint": "plan", "kl": 0.0}),
    # once every group is won its entropy bonus is nearly all that is left of the gradient, and
    # AdamW, which divides by the gradient's size, then takes whole steps away from what was learnt
    "adrs": Method(taught=REWARD_HINT, settings={"hint": "plan", "entropy": 0.0}),
    "step_opsd": Method(taught="the reward and a won attempt in hindsight"),
    "ocsd": Method(taught="the reward and later observations in hindsight"),
    # what it learns is to use its skills, so it starts from a policy that does not use them yet
    "skill_grpo": Method(taught=REWARD_HINT, settings={"hint": "plan"}, reads=0.0, hint="plan"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Where a method came to: shares of the best possible return, at the start and at the end."""

    method: str
    game: str
    seed: int
    start: float
    end: float
    seconds: float


def climb(name: str, game: str, seed: int) -> Reached:
    """Train a method on a game with a seed, and measure it before and after."""
    since = time.perf_counter()
    method, played = METHODS[name], GAMES[game]
    given = AlgorithmSection.model_validate({"name": name, **method.settings})
    algorithm = algorithm_of(given, method.steps, where=name)
    session = session_of(method, played)
    trainer = Trainer(
        session, algorithm, lr=method.rate, betas=BETAS, weight_decay=DECAY, seed=seed
    )
    tasks = played.suite.tasks("train")
    before = beginning(game, method.reads, method.hint, seed)
    for step in range(method.steps):
        episodes = gather(
            trainer.session,
            tasks,
            algorithm,
            count=len(tasks),
            group_size=COPIES,
            seed=seed,
            step=step,
        )
        trainer.learn(episodes)
    after = measured(trainer.session, method, played, seed)
    return Reached(
        method=name,
        game=game,
        seed=seed,
        start=before,
        end=after,
        seconds=time.perf_counter() - since,
    )


@cache
def beginning(game: str, reads: float, hint: str, seed: int) -> float:
    """What `measured` gives before the first step, which is the same for many methods."""
    method = Method(taught="", reads=reads, hint=hint)
    return measured(session_of(method, GAMES[game]), method, GAMES[game], seed)


def session_of(method: Method, game: Game) -> Session:
    """The student, which chooses evenly and reads hints, and a teacher that knows the game."""
    return Session(
        game.suite,
        {"self": Tabular(reads=method.reads), "teacher": Tabular(knows=game.rule)},
        context=context_for(game.suite, instructions=False),
        limits=Limits(max_turns=2, max_new_tokens=4, concurrency=1000),
    )


def measured(session: Session, method: Method, game: Game, seed: int) -> float:
    """The mean return of the sampled student as a share of the best possible return."""
    acting = Algorithm(terms=())
    if method.hint:
        views = {"hinted": View(hint=method.hint)}
        acting = Algorithm(terms=(), views=views, actors={"hinted": constant(1.0)})
    tasks = game.suite.tasks("unseen")
    copies = -(-MEASURED // len(tasks))
    episodes = play(session, tasks, acting, seed=seed, step=-1, group_size=copies)
    return sum(e.total_reward for e in episodes) / len(episodes) / game.optimum


def failing(reached: Sequence[Reached]) -> list[str]:
    """A sentence for each run that did not reach what its method must."""
    sentences = []
    for r in reached:
        if r.end < WANTED:
            sentences.append(
                f"{r.method} on {r.game}, seed {r.seed}: {r.end:.1%} of the best return, from "
                f"{r.start:.1%}; it must reach {WANTED:.1%}"
            )
    return sentences


def all_of(names: Sequence[str], seeds: Sequence[int], *, jobs: int) -> list[Reached]:
    """Every method on every game with every seed, `jobs` at a time, in their order."""
    wanted = [(name, game, seed) for name in names for game in GAMES for seed in seeds]
    if jobs == 1:
        return [climb(*each) for each in wanted]
    with get_context("spawn").Pool(jobs, initializer=_one_thread) as pool:
        return pool.starmap(climb, wanted, chunksize=4)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def table(reached: Sequence[Reached]) -> str:
    """A Markdown table: the lowest share of the best return over the seeds, by game."""
    rows = ["| method | taught by | doors | bandit |", "|---|---|---|---|"]
    for name in dict.fromkeys(r.method for r in reached):
        least = {
            game: min((r.end for r in reached if (r.method, r.game) == (name, game)), default=0.0)
            for game in GAMES
        }
        cells = " | ".join(f"{100 * share:.1f} %" for share in least.values())
        rows.append(f"| `{name}` | {METHODS[name].taught} | {cells} |")
    return "\n".join(rows)
