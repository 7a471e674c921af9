"""Bugs in formulas: `maths`, `schedules`, `objective`, `signals`, `batch`, `algorithms`."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

FORMULAS = ("tests/algorithms",)

BUGS: Bugs = {
    "maths/divergences.py": (
        ("tests/maths/test_divergences.py", "tests/maths/test_gradients.py"),
        [
            ("reverse KL of the wrong sign", "return (student - teacher).mul_(student.exp())",
             "return (teacher - student).mul_(student.exp())"),
            ("reverse KL's gradient without its one", "(student - teacher).add_(1)",
             "(student - teacher)"),
            ("forward KL without the teacher's entropy",
             "return (teacher - student).mul_(teacher.exp())",
             "return (-student).mul_(teacher.exp())"),
            ("forward KL's gradient of the wrong sign", "mul_(-grad[..., None])",
             "mul_(grad[..., None])"),
            ("Jensen-Shannon at its ends", "if not 0 < beta < 1:", "if not 0 <= beta <= 1:"),
            ("Jensen-Shannon mixed the wrong way",
             "teacher + math.log(beta), student + math.log1p(-beta)",
             "student + math.log(beta), teacher + math.log1p(-beta)"),
            ("Jensen-Shannon's gradient with the wrong share", "(1 - ctx.beta) * grad",
             "ctx.beta * grad"),
            (
                "the rest of a coarsening subtracted from 1",
                "others.logsumexp(-1, keepdim=True)",
                "torch.log1p(-kept.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-6))",
            ),
        ],
    ),
    "maths/estimators.py": (
        ("tests/maths/test_gradients.py",),
        [
            ("k3 of the wrong sign", "return gap.exp() - 1 - gap", "return gap.exp() - 1 + gap"),
            (
                "k3 without bound",
                "(teacher.detach() - student).clamp(max=20)",
                "(teacher.detach() - student)",
            ),
            (
                "k3 with only its exponential bounded",
                "    gap = (teacher.detach() - student).clamp(max=20)\n    return gap.exp()",
                "    gap = teacher.detach() - student\n    return gap.clamp(max=20).exp()",
            ),
            (
                "the log ratio turned round",
                "return teacher.detach() - student",
                "return student - teacher.detach()",
            ),
        ],
    ),
    "maths/surrogates.py": (
        ("tests/maths/test_surrogates.py", "tests/maths/test_gradients.py"),
        [
            ("PPO takes the better", "torch.minimum(r * credit", "torch.maximum(r * credit"),
            ("clip-higher ignored", "top = low if high is None else high", "top = low"),
            ("dual clip of good credits", "torch.where(credit < 0,", "torch.where(credit > 0,"),
            (
                "a ratio without bound",
                "(logp - old).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()",
                "(logp - old).exp()",
            ),
            ("the ratio upside down", "return (logp - old).clamp", "return (old - logp).clamp"),
            (
                "the score function of the wrong sign",
                "return lambda logp, old, credit: -credit * logp",
                "return lambda logp, old, credit: credit * logp",
            ),
            ("any clip range", "if not (0 <= low <= 1 and top >= 0):", "if False:"),
        ],
    ),
    "maths/credit.py": (
        ("tests/maths/test_credit.py",),
        [
            ("GRPO forgets std", "+ 1e-6 if std else 1.0", "* 0 + 1.0 if std else 1.0"),
            ("float32 statistics", "exact = outcome.double()", "exact = outcome"),
            ("RLOO with its own mean", " * count / (count - 1).clamp(min=1)", ""),
        ],
    ),
    "maths/segments.py": (
        ("tests/maths/test_credit.py",),
        [
            ("a variance for a deviation", "index, size).sqrt()", "index, size)"),
            ("means of empty segments", "count.clamp(min=1)", "count"),
        ],
    ),
    "schedules.py": (
        ("tests/maths/test_schedules.py",),
        [
            (
                "the cosine upside down",
                "(1 - math.cos(math.pi * x)) / 2",
                "(1 + math.cos(math.pi * x)) / 2",
            ),
            (
                "an end that is computed",
                "return end if step >= steps else start",
                "return end if step > 10 * steps else start",
            ),
            ("an exponential that rises", "end or min(floor, start)", "end or floor"),
            (
                "an exponential that never ends",
                "        if step >= steps:\n            return end\n",
                "",
            ),
        ],
    ),
    "maths/vocabulary.py": (
        ("tests/maths/test_vocabulary.py",),
        [
            ("no temperature for sampled tokens",
             "function(log_softmax(hidden, head, of.temperature), *rest)",
             "function(log_softmax(hidden, head, 1.0), *rest)"),
            ("no temperature for teachers", "teacher.head, teacher.temperature)",
             "teacher.head, 1.0)"),
            ("the last chunk lost",
             "        for i in range(0, len(of), of.chunk)\n    ]",
             "        for i in range(0, len(of) - of.chunk + 1, of.chunk)\n    ]"),
            ("a teacher's first chunk for all", "*(x[i : i + of.chunk] for x in more)",
             "*(x[: len(of.hidden[i : i + of.chunk])] for x in more)"),
            ("entropy of the wrong sign", "lambda rows: -(rows.exp() * rows).sum(-1)",
             "lambda rows: (rows.exp() * rows).sum(-1)"),
            ("any two vocabularies", "if len(student.head) != len(teacher.head):", "if False:"),
            ("probabilities in half precision",
             "logits if logits.dtype == torch.float64 else logits.float()", "logits"),
        ],
    ),
    "objective.py": (
        FORMULAS,
        [
            ("the correction of k3 dropped",
             "scale = ratio(logp, old[i[on]]) if self.corrected else 1.0", "scale = 1.0"),
            ("a divergence without its weight", "_spread(scale * value, on", "_spread(value, on"),
            ("a goal misaligned with its slice", "else goal().at(i[on])", "else goal().at(on)"),
            ("a credit misaligned with its slice", "old[i], credit[i])",
             "old[i], credit[: len(i)])"),
            ("an entropy that is punished", "-weight[i] * entropy(", "weight[i] * entropy("),
            ("a mean per micro-batch", "share * term(live, i) if", "term(live, i) / len(i) if"),
            ("terms of one name", "if len(set(names)) < len(names):", "if False:"),
            ("the sampler's denominator always", 'if self.old == "recomputed":', "if False:"),
            ("every token turned into a distribution",
             "on = counts[i].nonzero().squeeze(-1)\n            if len",
             "on = (counts[i] == counts[i]).nonzero().squeeze(-1)\n            if len"),
        ],
    ),
    "step.py": (
        FORMULAS,
        [
            ("a schedule that is logged and never applied", "now = scale(s.step)",
             "now = scale(0)"),
            ("signals that add for multiply", "scale * second(", "scale + second("),
            ("columns overwritten", "step.note(self.name, value)",
             "step.columns[self.name] = value"),
            ("signals with a graph", "with torch.no_grad():\n            value = torch.as_tensor",
             "if True:\n            value = torch.as_tensor"),
        ],
    ),
    "signals/basic.py": (
        FORMULAS,
        [
            ("the gap turned round", "s.scores[teacher].logp - s.scores[student].logp",
             "s.scores[student].logp - s.scores[teacher].logp"),
            ("actors swapped", "(s.batch.writer == who)", "(s.batch.writer != who)"),
            ("std ignored", "b.group, std=std)[b.owner]", "b.group)[b.owner]"),
        ],
    ),
    "signals/reductions.py": (
        FORMULAS,
        [
            ("episodes that count by length", "_divided(weight, whole * count)",
             "_divided(weight, weight.sum())"),
        ],
    ),
    "batch.py": (
        FORMULAS,
        [
            ("penalties forgotten", "turn.reward - turn.penalty", "turn.reward"),
            ("rewards in float32", "turn.penalty for _, turn in turns], dtype=torch.float64),\n"
             "        penalty", "turn.penalty for _, turn in turns], dtype=torch.float32),\n"
             "        penalty"),
            ("states shared between groups", "(episode.group, (", '("", ('),
            ("the state of the wrong turn", "turn.observation.state)",
             "turns[u - 1][1].observation.state)"),
            ("one group for all", "[episode.group for episode in episodes]",
             '["" for episode in episodes]'),
        ],
    ),
    "algorithms/grpo.py": (
        ("tests/algorithms/test_formulas.py",),
        [
            ("clip-higher not handed on", "ppo_clip(clip, clip_high, dual_clip)",
             "ppo_clip(clip, None, dual_clip)"),
            ("a pull to the teacher", 'DistillSampled(teacher="reference"',
             'DistillSampled(teacher="teacher"'),
            ("the denominator not handed on", "old=old, name", "name"),
        ],
    ),
    "algorithms/sft.py": (
        ("tests/algorithms/test_formulas.py",),
        [("a teacher who takes half the turns", "constant(1.0)", "constant(0.5)")],
    ),
}  # fmt: skip
