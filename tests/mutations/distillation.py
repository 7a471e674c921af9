"""Bugs in what weighs and gates a teacher: turns, tokens, and the methods made of them."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

TURNS = ("tests/algorithms/test_turns.py",)
GATES = ("tests/algorithms/test_gates.py",)
GUIDED = ("tests/algorithms/test_guided.py",)

BUGS: Bugs = {
    "maths/divergences.py": (
        GUIDED,
        [
            ("a top k of the wrong view", 'student if support == "student" else teacher',
             'teacher if support == "student" else student'),
            ("two supports in one divergence",
             "return divergence(coarsen(student, ids), coarsen(teacher, ids))",
             "return divergence(coarsen(student, ids), "
             "coarsen(teacher, teacher.topk(k, -1).indices))"),
            ("a top k without its rest",
             "return divergence(coarsen(student, ids), coarsen(teacher, ids))",
             "return divergence(student.gather(-1, ids), teacher.gather(-1, ids))"),
            ("a whole vocabulary that is pooled", "if k >= student.shape[-1]:", "if False:"),
        ],
    ),
    "maths/segments.py": (
        TURNS,
        [
            ("a flat segment at zero", "torch.full_like(x, 0.5)", "torch.zeros_like(x)"),
            ("a future that leaks between episodes", "* out[reach:] * same", "* out[reach:]"),
            ("a future without discount", "gamma**reach * out[reach:]", "out[reach:]"),
            ("a future that ends too early", "reach *= 2", "reach *= 4"),
        ],
    ),
    "maths/weights.py": (
        TURNS,
        [
            ("and for or", "return 1 - (1 - a) * (1 - b)", "return a * b"),
            ("disagreement scaled over the step", "soft_or(min_max(d, episode, size),",
             "soft_or(min_max(d, torch.zeros_like(episode), size),"),
            ("short episodes weighed", "(turns < min_turns) | (largest < min_gap)",
             "largest < min_gap"),
            ("agreeing episodes weighed", "(turns < min_turns) | (largest < min_gap)",
             "turns < min_turns"),
            ("one turn too many left alone", "turns < min_turns", "turns <= min_turns"),
            ("balanced by turns and not tokens", "segment_sum(weight * count, index, size) / "
             "segment_sum(count, index, size)",
             "segment_sum(weight, index, size) / segment_sum(torch.ones_like(count), index, size)"),
            ("balanced without bounds", ".clamp(low, high)", ""),
            ("a rare token that flattens all", "h.clamp(max=float(h.quantile(quantile)))", "h"),
            ("SOD turned round", "((d[first] + EPS) / (d + EPS))",
             "((d + EPS) / (d[first] + EPS))"),
            ("SOD without a cap", ".clamp(max=1 + headroom)", ""),
        ],
    ),
    "signals/turns.py": (
        TURNS,
        [
            ("a turn's signed gap", "s.scores[teacher].logp).abs()", "s.scores[teacher].logp)"),
            ("certainty for uncertainty", "h = segment_mean(-s.scores",
             "h = segment_mean(s.scores"),
            ("a turn's sum for its mean",
             "d = segment_mean(_disagreement(s, teacher, student), turn, turns)",
             "d = segment_sum(_disagreement(s, teacher, student), turn, turns)"),
            ("guards not handed on", "min_turns=min_turns, min_gap=min_gap)", ")"),
            ("a window off by one", "turns.position < max", "turns.position <= max"),
            ("a window over the step", "device=self.first.device) - self.first",
             "device=self.first.device)"),
            ("a window that is logged and stays", "math.floor(number(s.step))",
             "math.floor(number(0))"),
            ("silent turns counted", "kept, turn = torch.unique(batch.turn, return_inverse=True)",
             "kept, turn = torch.arange(len(batch.episode)), batch.turn"),
            ("a future over the step", "s.batch.owner, gamma)", "s.batch.owner * 0, gamma)"),
        ],
    ),
    "signals/gates.py": (
        GATES,
        [
            ("a gate turned round", "torch.sigmoid(beta * (theirs.logp - mine.logp))",
             "torch.sigmoid(beta * (mine.logp - theirs.logp))"),
            ("a gate without sharpness", "torch.sigmoid(beta * entropy(mine.distribution))",
             "torch.sigmoid(entropy(mine.distribution))"),
            ("the teacher's entropy", "torch.sigmoid(beta * entropy(mine.distribution))",
             "torch.sigmoid(beta * entropy(theirs.distribution))"),
            ("an entropy that is not a share",
             " / math.log(len(mine.distribution.head))", ""),
            ("the sign of the credit forgotten", "(credit(s).sign() * said(asked))", "said(s)"),
            ("evidence without bounds", ".exp().clamp(1 - width, 1 + width)", ".exp()"),
            ("evidence logged and not annealed", "share(s.step)", "share(0)"),
            ("any width", "if not 0 < width < 1:", "if False:"),
        ],
    ),
    "algorithms/opd.py": (
        (*GUIDED, "tests/algorithms/test_formulas.py", *TURNS),
        [
            ("the other direction of KL", "reverse_kl if vocabulary",
             "(lambda s, t: reverse_kl(t, s)) if vocabulary"),
            ("k not handed on", "top_k(reverse_kl, k, support)", "top_k(reverse_kl, 2, support)"),
            ("the support not handed on", "top_k(reverse_kl, k, support)", "top_k(reverse_kl, k)"),
            ("no clip", "importance() if clip is None else ppo_clip(clip, dual=dual_clip)",
             "importance()"),
            ("the discount ignored", "discounted_gap(gamma_kl) if gamma_kl else gap()", "gap()"),
        ],
    ),
    "algorithms/guided_opd.py": (
        (*GUIDED, "tests/algorithms/test_formulas.py"),
        [
            ("the two KLs swapped", 'acted_by(STUDENT), acted_by("teacher")',
             'acted_by("teacher"), acted_by(STUDENT)'),
            ("a decay over the whole run", "round(decay * total_steps)", "total_steps"),
            ("a policy gradient on the teacher's turns", "credit=gap() * mine", "credit=gap()"),
            ("another curriculum", "SHAPES[curriculum]", 'SHAPES["linear"]'),
            ("no dual clip", "ppo_clip(clip, dual=dual_clip)", "ppo_clip(clip)"),
            ("the teacher's direction for both", "of = KL[student_kl]", "of = KL[teacher_kl]"),
            ("k3 on everybody's tokens", "estimate=k3, weight=mine", "estimate=k3"),
            ("a clipped ratio on the teacher's tokens", "surrogate=importance()",
             "surrogate=ppo_clip(0.2)"),
            ("a fixed curriculum that falls", "beta = constant(start)",
             "beta = SHAPES['linear'](start, end, total_steps)"),
        ],
    ),
    "algorithms/atod.py": (
        TURNS,
        [
            ("kappa and rho swapped", "falling * (weight * gap()) + rising",
             "rising * (weight * gap()) + falling"),
            ("the reward weighed by turn", "falling * (weight * gap()) + rising * group_relative("
             "std=std)", "weight * (falling * gap() + rising * group_relative(std=std))"),
            ("annealed anyway", "linear(kappa, kappa_min, anneal_steps) if anneal",
             "linear(kappa, kappa_min, anneal_steps) if True"),
            ("any kappa", "kappa_min > kappa or rho_max < rho", "rho_max < rho"),
        ],
    ),
    "algorithms/sod.py": (
        TURNS,
        [
            ("the reward weighed too", "group_relative(std=std) + coef * (sod_weight("
             "headroom=headroom) * gap())", "sod_weight(headroom=headroom) * (group_relative("
             "std=std) + coef * gap())"),
            ("headroom not handed on", "sod_weight(headroom=headroom)", "sod_weight()"),
        ],
    ),
    "algorithms/tcod.py": (
        TURNS,
        [
            ("a window that grows too soon", "step // every", "-(-step // every)"),
            ("a mean over turns that do not count", "reduction=token_mean(window)",
             "reduction=token_mean()"),
        ],
    ),
    "algorithms/sdar.py": (
        GATES,
        [
            ("the coefficient lost", "estimate=log_ratio, gate=gate, weight=coef * ONE",
             "estimate=log_ratio, gate=gate"),
            ("the directions swapped", '"forward": forward_kl, "reverse": reverse_kl',
             '"forward": reverse_kl, "reverse": forward_kl'),
            ("no gate over the vocabulary", "divergence=DIVERGENCES[loss], gate=gate",
             "divergence=DIVERGENCES[loss]"),
            ("the reward's settings lost", "clip=clip, dual_clip=dual_clip, kl=kl", "kl=kl"),
            ("a teacher without its hint", "View(policy=teacher, hint=hint)",
             "View(policy=teacher)"),
        ],
    ),
    "algorithms/grpo_opsd.py": (
        GATES,
        [
            ("the forms swapped", 'if form == "score"', 'if form != "score"'),
            ("k1 for k2", "estimate=k2", "estimate=lambda p, q: p - q"),
        ],
    ),
    "algorithms/skill_sd.py": (
        GATES,
        [("k3 without its ratio", "corrected=True, ", "")],
    ),
    "algorithms/rlsd.py": (
        GATES,
        [
            ("evidence added", "reward * evidence(", "reward + evidence("),
            ("a strength that stays", "linear(strength, 0.0, decay_steps)", "strength"),
            ("any strength", "if not 0 <= strength <= 1:", "if False:"),
        ],
    ),
    "algorithms/gated_opsd.py": (
        GATES,
        [("a pull to the teacher twice", 'teacher="reference"', 'teacher="teacher"')],
    ),
}  # fmt: skip
