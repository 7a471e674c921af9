"""Self-tests of a run's wiring before it trains: each failure is one sentence.

The order is that of the list in `run_all`; later tests rely on earlier ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from tutelage.envs.base import Converses, Demonstrates, Suite, Thinks, suite_name
from tutelage.envs.check import quick
from tutelage.envs.guard import attempt, first_observation, open_env
from tutelage.errors import ConfigError, EnvError, PolicyError
from tutelage.maths.surrogates import score_function
from tutelage.objective import (
    ONE,
    STUDENT,
    Algorithm,
    Distill,
    DistillSampled,
    Entropy,
    Reinforce,
    Step,
    Term,
    View,
    bind,
)
from tutelage.objective.aligned import Coverage
from tutelage.objective.batch import collate
from tutelage.objective.scores import Scores
from tutelage.policies.base import Aligns, OpenedPolicy, Shards
from tutelage.policies.server.vllm import VllmEngine
from tutelage.policies.translated import TextOnly
from tutelage.prompts.prompter import Sample
from tutelage.rollout.play import play
from tutelage.rollout.ranks import ALONE, Ranks
from tutelage.rollout.session import Session
from tutelage.runs.models import student_of
from tutelage.runs.phases import Phase
from tutelage.schedules import constant
from tutelage.signals import gap
from tutelage.training.layout import prepare
from tutelage.types import Episode, Observation, Task, Turn

TURNS, NEW_TOKENS = 3, 24
"""Turns and tokens of the test episodes."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
"""Largest difference in log-probability between sampling and scoring the same token."""
REPEATS, NOISE_FACTOR = 3, 8.0
"""Times that a gradient is formed to see how far it differs from itself, where it does, and how
many times that far another may differ from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The parts of a run before its first step."""

    phases: Sequence[Phase]
    session: Session
    policies: Mapping[str, OpenedPolicy]
    task: Task
    split: str
    replayed: bool = False  # recorded episodes stand for the expert's
    ranks: Ranks = ALONE  # which run the tests together, where weights are always divided over them

    def views(self) -> dict[str, View]:
        """Every view of every phase whose policy is there (a reference is made later)."""
        found = {name: v for p in self.phases for name, v in p.algorithm.all_views().items()}
        return {name: v for name, v in found.items() if v.policy in self.policies}


def run_all(wiring: Wiring) -> list[str]:
    """Run every test; the names of those that passed.

    Raises EnvError, PolicyError or ConfigError for the first that does not.
    """
    passed = []
    for test in TESTS:
        test(wiring)
        passed.append((test.__doc__ or "").splitlines()[0].rstrip("."))
    return passed


# -- the environment


def environment(wiring: Wiring) -> None:
    """the environment keeps its promises on one task."""
    if isinstance(wiring.session.suite, Converses):
        return  # what is promised of an agent is other things: `tutelage check-agent`
    problems = quick(wiring.session.suite, wiring.split)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise EnvError(f"{problems[0]}{more}; `tutelage check-env` lists all problems")


def expert(wiring: Wiring) -> None:
    """the expert that is imitated wins within the turn limit."""
    needed = any(p.algorithm.acting.uses_expert for p in wiring.phases)
    if not needed or wiring.replayed:
        return
    aloud = any(phase.algorithm.acting.with_thoughts for phase in wiring.phases)
    limit = wiring.session.limits.max_turns
    check_expert(wiring.session.suite, wiring.task, limit, aloud=aloud)


def check_expert(suite: Suite, task: Task, limit: int, *, aloud: bool) -> None:
    """Refuse a suite without an expert, and one whose expert does not win within `limit` turns or,
    where it speaks `aloud`, has not a thought for each action."""
    if not isinstance(suite, Demonstrates):
        raise ConfigError(
            f"imitating an expert needs an environment that has one; {suite_name(suite)} has no "
            "`demonstrate` method: add one, or choose another algorithm"
        )
    script = list(attempt("demonstrate", partial(suite.demonstrate, task)))
    with open_env(suite) as env:
        seen = attempt("reset", partial(env.reset, task))
        for action in script:
            seen = attempt(f"step({action!r})", partial(env.step, action))
    if not seen.won:
        raise EnvError(
            f"the expert does not win task {task.id} with its {len(script)} actions, so it cannot "
            "be imitated; fix the environment's `demonstrate`"
        )
    if aloud and isinstance(suite, Thinks) and len(suite.thoughts(task)) != len(script):
        raise EnvError(
            f"the expert has {len(suite.thoughts(task))} thoughts for its {len(script)} actions in "
            f"task {task.id}; `thoughts` must return one for each action of `demonstrate`"
        )
    if len(script) > limit:
        raise ConfigError(
            f"the expert takes {len(script)} turns for task {task.id}, but rollout.max_turns = "
            f"{limit}: it could never win; raise rollout.max_turns"
        )


# -- tokens


def vocabulary(wiring: Wiring) -> None:
    """all models give every token id the same meaning, or translate it."""
    student = wiring.policies["self"].chat
    for name in sorted({view.policy for view in wiring.views().values()}):
        policy = wiring.policies[name]
        if isinstance(policy, TextOnly):
            for phase in wiring.phases:
                refuse_untold(name, phase.algorithm)
        if isinstance(policy, Aligns):
            for phase in wiring.phases:
                refuse_mixed_tokens(name, phase.algorithm)
        elif policy.chat.fingerprint() != student.fingerprint():
            raise PolicyError(
                f"the student's tokenizer and that of policies.{name} differ, and it has no tokens "
                "of its own that could be aligned; choose models of one family, or build the student "
                f'with policy.tokenizer = "{name}"'
            )


def refuse_untold(name: str, algorithm: Algorithm) -> None:
    """Refuse a policy that tells no log-probabilities where nothing learns from its own turns: some
    term must count for a turn that it wrote, though it says nothing of the turn's tokens."""
    views = [n for n, view in algorithm.all_views().items() if view.policy == name]
    for view in views:
        turn = Turn(
            observation=Observation(text=""), prompt=(0,), text="", tokens=(0,), logps=(0.0,)
        )
        turn = replace(turn, actor=view)
        batch = collate([Episode(task=Task(id=""), group="", turns=(turn,))])
        nothing = Coverage(chunk=torch.tensor([-1]), single=torch.tensor([False]))
        scores = {n: Scores(logp=torch.zeros(1)) for n in algorithm.all_views()}
        step = Step(batch, scores, 0, coverage=dict.fromkeys(views, nothing))
        counts = any(bool(term.bind(step).counts.any()) for term in algorithm.terms)
        if counts and view in algorithm.all_actors():
            return
    if views:
        raise PolicyError(
            f"policies.{name} is asked in messages and tells no log-probabilities, and nothing in "
            "this algorithm learns from turns that it writes; set algorithm.name to guided_opd "
            'with teacher_turns = "sampled", or play its episodes with `tutelage collect` and learn '
            "from them with sft, or name a teacher that can be scored"
        )


def refuse_no_top(name: str, policy: OpenedPolicy, episode: Episode) -> None:
    """Refuse a policy that told no log-probabilities of likely tokens in any turn of an episode."""
    if any(turn.top_logprobs for turn in episode.turns):
        return
    if isinstance(policy, TextOnly):
        why = "; ".join(policy.notes.values()) or "no token of its answers is one of the student's"
    else:
        why = "it is not asked in messages, and its whole distribution can be read"
    raise PolicyError(
        f"policies.{name} tells no log-probabilities of likely tokens ({why}); learn from its "
        'tokens alone with teacher_turns = "sampled", or from its distribution with "full" where it '
        "can be scored"
    )


def refuse_mixed_tokens(name: str, algorithm: Algorithm) -> None:
    """Refuse what a policy with another tokenizer than the student's cannot do."""
    views = {n for n, view in algorithm.all_views().items() if view.policy == name}
    takeover = algorithm.acting.takeover
    live = {t.teacher for t in algorithm.terms if isinstance(t, Distill) and t.live}
    if takeover is not None and takeover.view in views:
        what = "cannot finish a turn that the student began in its own tokens"
    elif live & views:
        what = "cannot be followed while the student moves"
    else:
        return
    raise PolicyError(
        f"policies.{name} has another tokenizer than the student, so it {what}; choose models of "
        f'one family, or build the student with policy.tokenizer = "{name}"'
    )


def template(wiring: Wiring) -> None:
    """chat templates keep earlier turns as they were, and no text is encoded to their tokens."""
    for name in sorted({view.policy for view in wiring.views().values()}):
        wiring.policies[name].chat.check_control()
        if wiring.session.context.kind == "transcript":
            hinted = any(v.hint for v in wiring.views().values() if v.policy == name)
            wiring.policies[name].chat.check(system=hinted or bool(wiring.session.context.system()))


def sampled_is_scored(wiring: Wiring) -> None:
    """the ids that are scored are the ids that were sampled, with the same probabilities."""
    for name, view in sorted(wiring.views().items()):
        acts = name == STUDENT or any(name in p.algorithm.all_actors() for p in wiring.phases)
        if acts:
            _acts(wiring, name, view)


def _acts(wiring: Wiring, name: str, view: View) -> None:
    episode = _played(wiring, name, view)
    if view.top_logprobs:
        refuse_no_top(view.policy, wiring.policies[view.policy], episode)
    samples = wiring.session.prompter(view, wiring.task).samples(episode)
    ids: list[int] = []
    for k, (sample, turn) in enumerate(zip(samples, episode.turns, strict=True)):
        ids = [*turn.prompt] if turn.fresh else [*ids, *turn.prompt]
        if sample.tokens != turn.tokens or sample.prompt != tuple(ids):
            raise PolicyError(
                f"turn {k} of {name} would be scored after another prompt than it was sampled "
                "after; this is a fault of the project: please report it with your configuration"
            )
        ids += turn.tokens
    policy, heat = wiring.policies[view.policy], wiring.session.limits.temperature
    scored = _logp(policy, samples, heat)
    drawn = torch.tensor([x for turn in episode.turns for x in turn.logps])
    worst = float((scored - drawn).abs().max()) if len(drawn) else 0.0
    limit = TOLERANCE[policy.dtype]
    if not worst <= limit:
        raise PolicyError(
            f"{name}'s log-probabilities when sampling and when scoring the same tokens differ by "
            f"{worst:.3g} (at most {limit:g} is rounding), so every gap and ratio would be wrong; "
            f"{_instead(policy)}"
        )


def _instead(policy: OpenedPolicy) -> str:
    """What to do where sampling and scoring differ."""
    if isinstance(getattr(policy, "engine", None), VllmEngine):
        dtype = policy.dtype
        return f"serve the student's own model with --dtype {dtype}, or leave policy.sampler out"
    return 'set dtype = "float32", or choose another model'


def _played(wiring: Wiring, name: str, view: View) -> Episode:
    """The head of one episode in which one view takes every turn."""
    limits = wiring.session.limits
    short = replace(
        limits,
        max_turns=min(TURNS, limits.max_turns),
        max_new_tokens=min(NEW_TOKENS, limits.max_new_tokens),
        retries=0,
    )
    alone = Algorithm(
        terms=(),
        views={} if name == STUDENT else {name: view},
        actors={} if name == STUDENT else {name: constant(1.0)},
    )
    session = replace(wiring.session, limits=short, tick=lambda done, total: None)
    (episode,) = play(session, [wiring.task], alone, seed=0, step=-2)
    if episode.stop.broken:
        raise EnvError(
            f"the environment failed on task {wiring.task.id}: {episode.error}; `tutelage "
            "check-env` gives details"
        )
    if not episode.turns:
        policy = wiring.policies[view.policy]
        raise ConfigError(
            f"{name}'s first prompt of task {wiring.task.id} leaves no room for "
            f"{short.max_new_tokens} new tokens in a context of {policy.context_length}; choose a "
            "model with a longer context, or a shorter context.render"
        )
    return episode


def _logp(policy: OpenedPolicy, samples: Sequence[Sample], temperature: float) -> Tensor:
    with torch.no_grad():
        return policy.score(samples, temperature).logp.float().cpu()


# -- distillation


def zero_gap(wiring: Wiring) -> None:
    """a teacher that is the student without privileged text has a gap of exactly 0."""
    episode, heat = _played(wiring, STUDENT, View()), wiring.session.limits.temperature
    twins = Algorithm(terms=(), views={"teacher": View(policy="self")})
    device = student_of(wiring.policies).device
    ready = prepare(twins, [episode], wiring.session.prompter, device)
    scores = {}
    with torch.no_grad():
        for name, samples in ready.samples.items():
            scores[name] = wiring.policies["self"].score(samples[0], heat)
        found = gap()(Step(ready.batch, scores, 0))
    if bool((found != 0).any()):
        raise PolicyError(
            "scoring the same tokens twice gives different numbers "
            f"(by up to {float(found.abs().max()):.3g}), so a teacher's gap would be noise; switch "
            "off what is random in the model, such as dropout"
        )


def privileged(wiring: Wiring) -> None:
    """privileged text reaches the teacher, whole and within its context."""
    for name, view in sorted(wiring.views().items()):
        if not view.hint:
            continue
        prompter = wiring.session.prompter(view, wiring.task)
        plain = replace(prompter, hint="")
        if not prompter.hint.strip():
            continue  # a task of which nothing is known; `hinting.prove` looks at more of them
        seen = first_observation(wiring.session.suite, wiring.task)
        shown, bare = prompter.piece([seen], [], False), plain.piece([seen], [], False)
        hinted = prompter.chat.content(wiring.session.context.system(prompter.hint))
        if shown == bare or not _holds(shown, hinted):
            raise PolicyError(
                f"the privileged text does not reach {name}: its prompt does not hold all of it; "
                "set chat_template to a Jinja file that shows the system message"
            )
        room, need = (
            wiring.policies[view.policy].context_length,
            wiring.session.limits.max_new_tokens,
        )
        if len(shown) + need > room:
            raise ConfigError(
                f"with its privileged text, {name}'s first prompt has {len(shown)} tokens, which "
                f"with rollout.max_new_tokens = {need} exceeds the context of {room}; choose a "
                "longer context or a shorter hint"
            )


def _holds(ids: Sequence[int], part: Sequence[int]) -> bool:
    n = len(part)
    return any(tuple(ids[i : i + n]) == tuple(part) for i in range(len(ids) - n + 1))


def silent_terms(wiring: Wiring) -> None:
    """a term whose coefficient is 0 leaves the gradient as it was.

    Bit for bit, where forming the same gradient again gives the same bits. A GPU's kernels may add
    in any order, so there the difference is held against that of the same gradient from itself.
    """
    terms: list[Term] = []
    for phase in wiring.phases:
        for term in phase.algorithm.terms:
            known = isinstance(term, Distill | DistillSampled) and (
                phase.algorithm.all_views()[term.teacher].policy in wiring.policies
            )
            if known or isinstance(term, Entropy):
                terms.append(replace(term, weight=0.0 * ONE))  # type: ignore[type-var]
    if not terms:
        return
    episode = _played(wiring, STUDENT, View())
    base = Reinforce(advantage=ONE, surrogate=score_function(), name="base")
    alone = _gradient(wiring, episode, (base,))
    beside = _gradient(wiring, episode, (base, *terms))
    apart = max(wiring.ranks.gather(_distance(alone, beside)))
    if apart == 0:
        return
    noise = max(_distance(alone, _gradient(wiring, episode, (base,))) for _ in range(REPEATS))
    noise = max(wiring.ranks.gather(noise))
    if not apart <= NOISE_FACTOR * noise:
        raise PolicyError(
            f"a loss with coefficient 0 changes the gradient (by {apart:.3g} in norm; forming the "
            f"same gradient again changes it by {noise:.3g}), so a baseline would not be one; this "
            "is a fault of the project: please report it with your configuration"
        )


def _distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Euclidean norm of the difference of two gradients; 0 where they are equal bit for bit, NaN
    where a number is."""
    if all(torch.equal(a, b) for a, b in zip(one, other, strict=True)):
        return 0.0
    parts = [(a.double() - b.double()).norm() for a, b in zip(one, other, strict=True)]
    return float(torch.stack(parts).norm())


def _gradient(wiring: Wiring, episode: Episode, terms: tuple[Term, ...]) -> list[Tensor]:
    heat, views = wiring.session.limits.temperature, wiring.views()
    samples = {
        n: wiring.session.prompter(v, wiring.task).samples(episode) for n, v in views.items()
    }
    device = student_of(wiring.policies).device
    with torch.no_grad():
        before = {
            n: wiring.policies[v.policy].score(samples[n], heat).to(device)
            for n, v in views.items()
        }
    batch = collate([episode]).to(device)
    objective = bind(Algorithm(terms=terms, views=views), Step(batch, before, 0))
    trained = {term.trains for term in terms}
    live = {n: wiring.policies[views[n].policy].score(samples[n], heat) for n in sorted(trained)}
    everything = torch.arange(len(batch.token), device=device)
    # every term is called, though none of its tokens counts: beside tokens that do, it would be
    parts = {
        name: objective.token_weight * term(live, everything) for name, term in objective.terms
    }
    student = student_of(wiring.policies)
    parameters = list(student.parameters())
    loss = torch.stack([part.sum() for part in parts.values()]).sum()
    if isinstance(student, Shards) and student.sharded is not None:
        loss.backward()  # type: ignore[no-untyped-call]  # FSDP sums in its hooks, which grad() misses
        student.sharded.collect()
        gradients = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
    else:
        gradients = list(torch.autograd.grad(loss, parameters, allow_unused=True))
    return [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]


TESTS: tuple[Callable[[Wiring], None], ...] = (
    environment,
    expert,
    vocabulary,
    template,
    sampled_is_scored,
    zero_gap,
    privileged,
    silent_terms,
)
