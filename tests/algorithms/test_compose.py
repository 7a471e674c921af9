"""compose: equal losses to the built-in methods, and error messages that name the place."""

import ast
import string
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.fake_steps import World, gradient, parts, world

from tutelage.algorithms import ALGORITHMS, functions
from tutelage.algorithms.compose import EXPRESSIONS, TERMS, compose
from tutelage.cli import dry_run
from tutelage.config.schema import AlgorithmSection
from tutelage.config.toml_file import override, parse, write
from tutelage.errors import ConfigError
from tutelage.objective import Acting, Algorithm, Reinforce, Signal, bind
from tutelage.runs.phases import algorithm_of
from tutelage.schedules import SHAPES
from tutelage.signals import acted_by, gap, gap_gate, group_relative, t_dur

TEACHER = "[views.teacher]\npolicy = 'teacher'\n"
PAIRS: dict[str, tuple[Callable[[], Algorithm], str]] = {
    "grpo": (
        ALGORITHMS["grpo"],
        "[terms.grpo]\nkind = 'reinforce'\nadvantage = 'group_relative()'\n"
        "surrogate = 'ppo_clip(0.2, dual=3)'",
    ),
    "grpo everything": (
        lambda: ALGORITHMS["grpo"](
            kl=0.3, entropy=0.07, clip_high=0.28, std=False, old="recomputed"
        ),
        """
        views.reference = { policy = "reference" }
        [terms.grpo]
        kind = "reinforce"
        advantage = "group_relative(std=False)"
        surrogate = "ppo_clip(low=0.2, high=0.28, dual=3.0)"
        old = "recomputed"
        [terms.kl]
        kind = "distill_sampled"
        teacher = "reference"
        estimate = "k3"
        weight = 0.3
        [terms.entropy]
        weight = "0.07"
        """,
    ),
    "opd": (
        ALGORITHMS["opd"],
        TEACHER
        + "[terms.opd]\nkind = 'reinforce'\nadvantage = 'gap()'\nsurrogate = 'importance()'",
    ),
    "opd full": (
        lambda: ALGORITHMS["opd"](vocabulary="full"),
        TEACHER + "[terms.opd]\nkind = 'distill'\ndivergence = 'reverse_kl'",
    ),
    "opd topk": (
        lambda: ALGORITHMS["opd"](vocabulary="topk", k=3),
        TEACHER + "[terms.opd]\nkind = 'distill'\ndivergence = 'top_k(reverse_kl, 3)'",
    ),
    "vopd": (
        ALGORITHMS["vopd"],
        TEACHER
        + "[terms.vopd]\nkind = 'distill_sampled'\nestimate = 'detached_k1'\ncorrected = true\n"
        "baseline = 'reverse_kl'",
    ),
    "guided_opd": (
        lambda: ALGORITHMS["guided_opd"](total_steps=50),
        """
        views.teacher = { policy = "teacher" }
        actors.teacher = "cosine(1, 0, 0.8 * total_steps)"
        [terms.student]
        kind = "distill"
        divergence = "reverse_kl"
        weight = "acted_by('student')"
        [terms.teacher]
        kind = "distill"
        divergence = "forward_kl"
        weight = "acted_by('teacher')"
        """,
    ),
    "atod": (
        ALGORITHMS["atod"],
        TEACHER + "[terms.atod]\nkind = 'reinforce'\nsurrogate = 'ppo_clip(dual=3)'\n"
        "advantage = 'linear(1, 0.1, 80) * (t_dur() * gap()) + linear(1, 2, 80) * group_relative()'",
    ),
    "sdar": (
        lambda: ALGORITHMS["sdar"](kl=0.0),
        """
        views.teacher = { hint = "skills" }
        [terms.grpo]
        kind = "reinforce"
        advantage = "group_relative()"
        surrogate = "ppo_clip(dual=3)"
        [terms.sdar]
        kind = "distill_sampled"
        estimate = "log_ratio"
        gate = "gap_gate()"
        weight = 0.01
        """,
    ),
    "step_opsd": (
        lambda: ALGORITHMS["step_opsd"](kl=0.0),
        """
        views.teacher = { hindsight = "peer_success()" }
        [terms.step_opsd]
        kind = "reinforce"
        surrogate = "ppo_clip(dual=3)"
        advantage = "equal_turns(group_relative() * (1 + linear(0.2, 0, 50) * (support() - 1)))"
        """,
    ),
}


def composed(toml: str, total_steps: int = 50) -> Algorithm:
    """As a file's section [algorithm] would be made."""
    section = AlgorithmSection.model_validate({"name": "compose", **tomllib.loads(toml)})
    return algorithm_of(section, total_steps, where="algorithm")


@pytest.mark.parametrize("name", PAIRS)
def test_a_file_written_as_compose_gives_the_identical_loss_and_gradient(name: str) -> None:
    make, toml = PAIRS[name]
    for seed in range(3):
        of = world(seed)
        for at in (0, 3, 40, 99):
            files, ours = make(), composed(toml)
            step = of.step(at)
            everything = [torch.arange(len(step.batch.token))]
            a, b = (gradient(bind(x, of.step(at)), of, step, everything) for x in (files, ours))
            assert a[0] == b[0]
            assert torch.equal(a[1], b[1])
            assert list(parts(files, of, at).values()) == list(parts(ours, of, at).values())


def test_who_plays_is_the_same_too() -> None:
    files, ours = ALGORITHMS["guided_opd"](total_steps=50), composed(PAIRS["guided_opd"][1])
    assert ours.views == files.views
    for step in (0, 1, 20, 39, 40, 50, 99):
        assert ours.actors["teacher"](step) == files.actors["teacher"](step)


EVERYTHING = """
views.teacher = { policy = "teacher" }
actors.teacher = "cosine(1, 0, 0.8 * total_steps)"
[terms.mine]
kind = "reinforce"
advantage = "acted_by('student') * (linear(1, 0.1, 80) * t_dur() * gap() + linear(1, 2, 80) * group_relative())"
surrogate = "ppo_clip(0.2, dual=3)"
[terms.pull]
kind = "distill_sampled"
estimate = "log_ratio"
gate = "gap_gate(beta=5)"
weight = "0.01 * acted_by('student')"
[terms.theirs]
kind = "distill"
divergence = "forward_kl"
weight = "acted_by('teacher')"
"""


@pytest.mark.parametrize("at", [0, 40, 80, 200])
def test_guided_turns_sdars_gate_t_dur_and_annealing_from_a_configuration_alone(at: int) -> None:
    of = world(2)
    step = of.step(at)
    got = parts(composed(EVERYTHING, 100), of, at)
    p, q, old = step.scores["student"].logp, step.scores["teacher"].logp, step.batch.logp
    actual, share = acted_by("student")(step), min(at / 80, 1)
    advantage = (1 - 0.9 * share) * t_dur()(step) * (q - p) + (1 + share) * group_relative()(step)
    advantage, r = advantage * actual, (p - old).exp()
    gain = torch.minimum(r * advantage, r.clamp(0.8, 1.2) * advantage)
    gain = torch.where(advantage < 0, torch.maximum(gain, 3 * advantage), gain)
    assert got["mine"] == pytest.approx(float(-gain.mean()), rel=1e-4, abs=1e-6)
    pull = 0.01 * actual * torch.sigmoid(5 * (q - p)) * (q - p)
    assert got["pull"] == pytest.approx(float(pull.mean()), rel=1e-4, abs=1e-7)
    full = ALGORITHMS["guided_opd"](total_steps=100)
    assert got["theirs"] == pytest.approx(list(parts(full, of, at).values())[1], rel=1e-6)


# -- expressions

READER = functions.reader(numbers={"total_steps": 80}, views=("student", "teacher"))


def signal(text: object) -> Signal:
    result = READER.read(text, "signal", "x")
    assert isinstance(result, Signal)
    return result


@pytest.fixture
def of() -> World:
    return world(0)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("gap() + group_relative()", lambda g, a, s: g + a),
        ("gap() - group_relative()", lambda g, a, s: g - a),
        ("-gap()", lambda g, a, s: -g),
        ("+gap()", lambda g, a, s: g),
        ("gap() * 2", lambda g, a, s: 2 * g),
        ("2 * gap() * 3", lambda g, a, s: 6 * g),
        ("1 - gap()", lambda g, a, s: 1 - g),
        ("gap() * linear(1, 0, 80)", lambda g, a, s: (1 - s / 80) * g),
        ("linear(1, 0, total_steps) * gap()", lambda g, a, s: (1 - s / 80) * g),
        ("(1 - linear(1, 0, 80)) * gap()", lambda g, a, s: s / 80 * g),
        ("linear(1, 0, 80) * linear(0, 1, 80) * gap()", lambda g, a, s: (1 - s / 80) * s / 80 * g),
        ("-linear(1, 0, 80) + gap()", lambda g, a, s: g - 1 + s / 80),
        ("linear(1, 0, 0.5 * total_steps) * gap()", lambda g, a, s: max(0, 1 - s / 40) * g),
        ("constant(3)", lambda g, a, s: 0 * g + 3),
        ("2 * (gap() + 1) * group_relative()", lambda g, a, s: 2 * (g + 1) * a),
        (0.25, lambda g, a, s: 0 * g + 0.25),
        (3, lambda g, a, s: 0 * g + 3),
        ("whitened(gap()) - whitened(x=gap())", lambda g, a, s: 0 * g),
        (" gap(\n  teacher='teacher'\n) ", lambda g, a, s: g),
    ],
)
def test_what_an_expression_means(of: World, text: object, want: Callable[..., object]) -> None:
    for at in (0, 10, 80):
        step = of.step(at)
        actual = want(gap()(step), group_relative()(step), at)
        assert isinstance(actual, torch.Tensor)
        assert torch.allclose(signal(text)(step), actual, atol=1e-6)


def test_steps_from_a_share_of_the_run_are_whole_and_at_least_one() -> None:
    for total, share, end in ((7, 0.5, 4), (3, 0.1, 1), (100, 0.8, 80)):
        reader = functions.reader(numbers={"total_steps": total}, views=())
        result = reader.read(f"linear(1, 0, {share} * total_steps)", "schedule", "x")
        assert result(end) == 0
        assert result(end - 1) > 0


def test_other_kinds_of_functions(of: World) -> None:
    assert READER.read("0.5", "schedule", "x")(3) == 0.5
    step = of.step()
    actual, reference = step.scores["student"], step.scores["teacher"]
    gate = READER.read("gap_gate(beta=2)", "gate", "x")
    assert torch.equal(gate(actual, reference), gap_gate(2.0)(actual, reference))
    p, q = (s.distribution.logps() for s in (actual, reference))
    js = READER.read("jensen_shannon(beta=0.3)", "divergence", "x")
    assert torch.equal(js(p, q), functions.functions()["jensen_shannon"].call(p, q, beta=0.3))
    assert js.__name__ == "jensen_shannon(beta=0.3)"
    assert READER.read("reverse_kl()", "divergence", "x") is READER.read(
        "reverse_kl", "divergence", "x"
    )
    leak = READER.read("leakage(words=['key'], each=0.5)", "penalty", "x")
    assert callable(leak)


WRONG = [
    (
        "gaap()",
        r"""advantage, character 1 of "gaap\(\)": there is no function 'gaap'; did you mean gap\?""",
    ),
    ("gap() + gruop_relative()", "character 9 .*did you mean group_relative"),
    ("gap", "gap must be called, as gap\\(teacher='teacher'"),
    ("total_stesp * gap()", "did you mean total_steps"),
    ("gap(", "character 4 .*cannot be read"),
    ("gap() gap()", "cannot be read"),
    ("", "cannot be read"),
    ("gap() + gap_gate()", "character 9 .*a gate does not add or multiply"),
    ("-'a'", "a literal does not add"),
    ("'a'", "this is a literal, but a signal is expected here"),
    ("True", "this is a literal, but a signal is expected here"),
    ("ppo_clip()", "this is a surrogate, but a signal is expected here"),
    ("linear(1, 2)", r"steps is missing in linear\(start, end, steps\)"),
    ("linear(1, 0, 0)", "a schedule needs steps > 0, got 0"),
    ("linear(1, 0, 2.5)", "linear's steps must be an integer"),
    ("linear(1, 0, gap())", "linear's steps must be an integer"),
    ("linear(True, 0, 3)", "linear's start must be a number"),
    ("linear(1, 0, 5, 6)", "only 3 arguments can be given without their names"),
    ("t_dur('teacher')", "only 0 arguments can be given"),
    ("gap(teachr='teacher')", "has no argument 'teachr'; did you mean teacher"),
    ("gap('teacher', teacher='teacher')", "teacher is given twice"),
    ("gap(teacher='techer')", "reads a view 'techer', but there are only .*did you mean teacher"),
    ("residual_weight()", "reads a view 'full'"),
    ("group_relative(std=3)", "std must be true or false"),
    ("acted_by('studnt')", "acted_by reads a view 'studnt', but there are only student, teacher"),
    ("reliability(units='turn')", 'must be "episode" or "state"'),
    ("evidence(group_relative(), 'a')", "strength must be schedule"),
    ("whitened('a')", "x must be signal"),
    ("gap(*['a'])", "one by one"),
    ("gap(**{})", "one by one"),
    ("gap() / 2", "only function calls"),
    ("gap() ** 2", "only function calls"),
    ("gap() if 1 else 2", "only function calls"),
    ("[1, gap()]", "only function calls"),
    ("1e999 * gap()", "finite numbers"),
    (f"{10**400} * gap()", "finite numbers"),
    ("1e308 * 10 * gap()", "this is no finite number; use smaller ones"),
    ("linear(0, 1e308, 8) * 10 * gap()", "this is no finite number at some steps"),
    ("(lambda: 1)()", "only function calls"),
    ("gap.__class__", "only function calls"),
    ("__import__('os').system('true')", "only function calls"),
    ("__import__('os')", "there is no function '__import__'"),
    ("gap" * 2000, "longer than"),
    ("(" * 900, "cannot be read"),
    ("-" * 3000 + "1", "cannot be read"),
    ("\0", "cannot be read"),
    (None, "must be an expression in quotes or a number, got None"),
    (["gap()"], "must be an expression in quotes or a number"),
    (True, "must be an expression in quotes or a number, got True"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=range(len(WRONG)))
def test_every_mistake_is_a_sentence_with_its_place(text: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        READER.read(text, "signal", "advantage")
    assert str(caught.value).startswith("advantage")
    assert len(str(caught.value)) < 400


def test_the_place_counts_characters_and_a_long_expression_is_cut() -> None:
    with pytest.raises(ValueError, match=r'character 26 of "gap\(.ééé.,.ééé.\)'):
        functions.reader(numbers={}, views=["ééé"]).read(
            "gap('ééé','ééé') + 0.5 * gapp()", "signal", "x"
        )
    long = "gap() + " * 40 + "gapp()"
    with pytest.raises(ValueError, match="gapp") as caught:
        signal(long)
    assert f"character {len(long) - 5} of" in str(caught.value)
    assert len(str(caught.value)) < 250


ALPHABET = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [*functions.functions(), "(", ")", "+", "-", "*", ",", "1", "0.5", "'teacher'", "="]
        ),
        max_size=12,
    ).map("".join),
    st.text(alphabet=string.printable, max_size=30),
)


@given(text=ALPHABET)
def test_any_text_is_read_or_refused_in_a_sentence(text: str) -> None:
    message, result = "x", None
    try:
        result = READER.read(text, "signal", "x")
    except ValueError as error:
        message = str(error)
    assert message.startswith("x")
    assert message != "x" or isinstance(result, Signal)


# -- tables

TABLES = [
    ("", "terms is missing"),
    ("terms = {}", "terms is empty"),
    ("[terms]\nreinforce = 3", "algorithm.terms must be a table, got {reinforce = 3}"),
    ("[terms.a]\nadvantage = '1'", "terms.a.kind must be one of reinforce, .*got 'a'"),
    ("[terms.a]\nkind = 'distil'", "did you mean distill"),
    (
        "[terms.reinforce]\nadvantaeg = '1'",
        "terms.reinforce.advantaeg is not a setting; did you mean advantage",
    ),
    (
        "[terms.reinforce]\nold = 'sampler'",
        "terms.reinforce.advantage is missing; a Reinforce needs it",
    ),
    (
        "[terms.reinforce]\nadvantage = '1'\nold = 'new'",
        'old must be "sampler" or "recomputed"',
    ),
    ("[terms.reinforce]\nadvantage = '1'\nname = 'x'", "name is not a setting"),
    (
        "[terms.reinforce]\nadvantage = '1'\ntrains = 'studnet'",
        "trains: there is no view 'studnet'; did you",
    ),
    ("[terms.distill]\ndivergence = 'reverse_kl'", r"teacher: .*add \[algorithm.views.teacher\]"),
    (
        "[terms.reinforce]\nadvantage = '1'\n[actors]\nteacher = 1",
        "actors: there is no view 'teacher'",
    ),
    (
        "[views.teacher]\npolicy = 3\n[terms.reinforce]\nadvantage = '1'",
        "policy must be a string, got 3",
    ),
    (
        "[views.teacher]\nhidn = ''\n[terms.reinforce]\nadvantage = '1'",
        "hidn is not a setting; did you mean hint",
    ),
    (
        "token_weight = 'gap_gate()'\n[terms.reinforce]\nadvantage = '1'",
        "this is a gate, but a signal",
    ),
    ("rewards = 1\n[terms.reinforce]\nadvantage = '1'", "rewards is not a setting of compose"),
]


@pytest.mark.parametrize(("toml", "message"), TABLES, ids=range(len(TABLES)))
def test_every_mistake_in_a_table_is_a_sentence(toml: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(toml)


def test_every_field_of_an_algorithm_can_be_composed() -> None:
    result = composed(
        """
        views.teacher = { policy = "teacher" }
        actors.teacher = 0.25
        token_weight = "episode_sum()"
        minibatch_weight = "episode_mean()"
        penalties.leakage = "leakage(each=0.2)"
        [acting]
        expert = true
        student_turns = "linear(1, 9, total_steps)"
        hinted_share.teacher = 0.5
        hinted_only = ["left"]
        with_errors = true
        with_thoughts = true
        takeover = { view = "teacher", factor = 2.0 }
        max_batches = 2
        [terms.distill]
        divergence = "reverse_kl"
        live = true
        """
    )
    plain = Algorithm(terms=(Reinforce(advantage=gap()),))
    same = [f.name for f in fields(result) if getattr(result, f.name) == getattr(plain, f.name)]
    assert same == []
    acting, unset = result.acting, Acting()
    assert [
        f.name for f in fields(acting) if getattr(acting, f.name) == getattr(unset, f.name)
    ] == []
    assert acting.student_turns is not None
    assert acting.student_turns(50) == 9
    assert acting.takeover is not None
    assert (acting.takeover.view, acting.takeover.factor) == ("teacher", 2.0)


def test_every_part_of_a_term_can_be_written() -> None:
    """A new field of a term is either an expression or a literal."""
    for kind in TERMS.values():
        for field in fields(kind):
            text = str(field.type)
            simple = any(word in text for word in ("str", "bool", "Literal"))
            assert simple or field.name in EXPRESSIONS, field


# -- runs

RUN = """
run.steps = 40
env.suite = "doors"
update.lr = 1e-3
policy.layers = 1
policy.build = {hidden = 32, context = 512}
policies.teacher.model = "builtin:household-teacher"
eval.tasks = 5
[rollout]
tasks_per_step = 4
group_size = 2
[algorithm]
name = "compose"
"""


def file() -> dict[str, object]:
    table = tomllib.loads(RUN)
    table["algorithm"].update(tomllib.loads(EVERYTHING))
    return table


def test_a_configuration_is_written_and_read_back_equal() -> None:
    config = parse(file())  # type: ignore[arg-type]
    again = parse(tomllib.loads(write(config)))
    assert again == config
    assert list(again.algorithm.arguments()["terms"]) == ["mine", "pull", "theirs"]  # type: ignore[arg-type]


def test_parts_are_overridden_on_the_command_line() -> None:
    table = override(
        file(),  # type: ignore[arg-type]
        [
            "algorithm.terms.pull.weight=0.5 * acted_by('student')",
            "algorithm.terms.pull.gate=entropy_gate(beta=2)",
            "algorithm.actors.teacher=0.25",
            "algorithm.terms.theirs.weight=2",
        ],
    )
    result = algorithm_of(parse(table).algorithm, 40, where="algorithm")
    assert result.actors["teacher"](3) == 0.25
    weights = {term.name: getattr(term, "weight", None) for term in result.terms}
    assert weights["pull"].name == "0.5 * acted_by[student]"  # type: ignore[union-attr]
    assert weights["theirs"].name == "2 * 1"  # type: ignore[union-attr]


def test_the_plan_shows_terms_and_their_schedules(tmp_path: Path) -> None:
    table = file()
    table["run"]["folder"] = str(tmp_path / "run")  # type: ignore[index]
    table["rollout"]["max_new_tokens"] = 8  # type: ignore[index]
    result = dry_run.make(parse(table))  # type: ignore[arg-type]
    message = {name: text for _, name, text in result.terms}
    assert message["mine"].startswith("policy gradient on acted_by[student] * (")
    assert "gated, times 0.01 * acted_by[student]" in message["pull"]
    along = dict(result.schedules)
    assert along["train: probability that teacher acts"][0] == 1
    assert along["train: mine.advantage, linear(1, 0.1, 80)"] == pytest.approx(
        (1, 0.8875, 0.775, 0.6625, 0.55)
    )
    assert along["train: mine.advantage, linear(1, 2, 80)"][-1] == 1.5


# -- the functions


def test_functions_are_found_by_what_functions_return() -> None:
    found = functions.functions()
    kinds = Counter(word.kind for word in found.values())
    assert set(kinds) == set(functions.KINDS)
    assert set(SHAPES) | {"constant"} == {n for n, w in found.items() if w.kind == "schedule"}
    for name, kind in (
        ("t_dur", "signal"),
        ("gap_gate", "gate"),
        ("ppo_clip", "surrogate"),
        ("k3", "estimate"),
        ("reverse_kl", "divergence"),
        ("top_k", "divergence"),
        ("peer_success", "hindsight"),
        ("leakage", "penalty"),
    ):
        assert found[name].kind == kind
    assert "coarsen" not in found
    assert "as_schedule" not in found


def test_no_two_functions_share_a_name() -> None:
    registry = functions

    names = [w.name for module in registry._modules() for w in registry._functions_of(module)]
    assert [name for name, count in Counter(names).items() if count > 1] == []


@pytest.mark.parametrize("name", functions.functions())
def test_every_function_has_a_meaning(name: str) -> None:
    word = functions.functions()[name]
    assert len(word.meaning) > 15
    assert ast.parse(word.usage.replace("|", ""), mode="eval")


def test_the_settings_are_those_that_are_explained() -> None:
    assert compose.__doc__
    for name in compose.__annotations__:
        assert f"{name}: " in compose.__doc__ or name in ("return", "total_steps")
