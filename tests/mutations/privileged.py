"""Bugs in pi-Distill, OPSD, hinted imitation, and episodes that somebody else begins or ends."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

FORMULAS = ("tests/algorithms/test_pi_distill.py",)
HANDED = ("tests/test_handover.py",)

BUGS: Bugs = {
    "algorithms/pi_distill.py": (
        FORMULAS,
        [
            ("the teacher's share for the student", "theirs, mine = rising * ONE, (lambda step: "
             "1.0 - rising(step)) * ONE", "mine, theirs = rising * ONE, (lambda step: "
             "1.0 - rising(step)) * ONE"),
            ("advantages over their deviation", "group_relative(std=False)", "group_relative()"),
            ("the teacher pulled the wrong way", "divergence=reverse_kl", "divergence=forward_kl"),
            ("the student pulled the wrong way", "divergence=forward_kl", "divergence=reverse_kl"),
            ("a ramp over the whole run", "round(ramp * total_steps)", "total_steps"),
            ("a KL whatever beta", "weight=beta * mine", "weight=mine"),
            ("a KL whatever alpha", "weight=beta * theirs", "weight=beta * ONE"),
            ("the student acts", 'actors={"teacher": constant(1.0)}', "actors={}"),
            ("flat groups in a sum's size", "episode_mean(kept)", "episode_mean()"),
            ("flat groups in the mean", "token_mean(kept)", "token_mean()"),
        ],
    ),
    "algorithms/opsd.py": (
        FORMULAS,
        [
            ("the KL of the other direction", "divergence=reverse_kl", "divergence=forward_kl"),
            ("a teacher of yesterday", "live=teacher == \"self\"", "live=False"),
            ("advantages over their deviation", "group_relative(std=False)", "group_relative()"),
        ],
    ),
    "algorithms/sft.py": (
        FORMULAS,
        [
            ("the shares swapped", "(1.0 - hinted if hint", "(hinted if hint"),
            ("the hinted term trains the plain view", ', trains="hinted"', ""),
            ("a mixture trains the plain view", ", trains=view", ""),
            ("a mixture imitates everything under each", "credit=acted_by(view)", "credit=ONE"),
        ],
    ),
    "signals/reductions.py": (
        FORMULAS,
        [
            ("flat by rounding", "high - low > 1e-9", "high > low"),
            ("sums over all episodes", "(whole != 0).sum()", "(whole == whole).sum()"),
            ("0 / 0", "x / torch.where(by == 0, 1.0, by)", "x / by"),
        ],
    ),
    "trainer.py": (
        (*FORMULAS, "tests/test_trainer.py"),
        [
            ("a gradient through what is only read",
             "with torch.no_grad():\n            live",
             "if True:\n            live"),
            ("views that nothing needs are read",
             "objective.reads(_index(ready, [row]).to(device))",
             "live"),
            ("needed views are not all read", "sorted(set(needed) - set(followed))",
             "sorted(needed)[:1]"),
            ("an update from nothing", "            if size:\n                yield part, size",
             "            yield part, size or 1.0"),
        ],
    ),
    "handover.py": (
        HANDED,
        [
            ("a mean that holds the token itself", "            if mean is not None and d > max("
             "self.factor * mean, self.floor):\n                return i\n            mean = d if "
             "mean is None else self.ema * mean + (1 - self.ema) * d\n",
             "            first, mean = mean is None, d if mean is None else self.ema * mean + "
             "(1 - self.ema) * d\n            if not first and d > max(self.factor * mean, "
             "self.floor):\n                return i\n"),
            ("the mean forgets the wrong way", "self.ema * mean + (1 - self.ema) * d",
             "(1 - self.ema) * mean + self.ema * d"),
            ("a floor or a threshold", "max(self.factor * mean, self.floor)",
             "min(self.factor * mean, self.floor)"),
            ("one token late", "                return i\n", "                return i + 1\n"),
        ],
    ),
    "types.py": (
        HANDED,
        [
            ("the turn is all its beginner's", "(self.taken.by,) * rest", "(self.actor,) * rest"),
        ],
    ),
    "signals/basic.py": (
        HANDED,
        [
            ("turns instead of tokens", "(s.batch.writer == who).float()",
             "(s.batch.actor == who).float()[s.batch.turn]"),
        ],
    ),
    "policies/compare.py": (
        HANDED,
        [
            ("both after the student's prompt", "[other for _, other in turns]",
             "[own for own, _ in turns]"),
            ("the divergence turned round", "diverge(reverse_kl, p, q.to(str(p.hidden.device)))",
             "diverge(reverse_kl, q.to(str(p.hidden.device)), p)"),
        ],
    ),
    "rollout.py": (
        HANDED,
        [
            ("an opening that leaves nothing", "turns[: max(0, len(turns) - left)]", "turns"),
            ("an opening that wraps around", "max(0, len(turns) - left)", "len(turns) - left"),
            ("the opening of step 0 for ever", "int(a.left(self.step))", "int(a.left(0))"),
            ("nobody goes on after the opening",
             "self.algorithm.demonstrated or len(p.turns) < len(p.opening)",
             "self.algorithm.demonstrated or p.opening"),
            ("what was written first is lost", "(*p.head.tokens, *made.tokens), (*p.head.logps, "
             "*made.logps)", "made.tokens, made.logps"),
            ("one seed for head and rest", 'seed_of("taken", p.rng_name, len(p.turns))',
             'seed_of("turn", p.rng_name, len(p.turns) + 0)'),
            ("more room than a turn has", "limits.new_tokens - used", "limits.new_tokens"),
            ("the teacher goes on from the student's whole turn", "tokens=made.tokens[:at]",
             "tokens=made.tokens"),
            ("only the beginner is released", " | {t.taken.by for t in p.turns if t.taken}", ""),
            ("a teacher that judges its own turns", "p.actor == STUDENT and p.head is None",
             "p.head is None"),
            ("no room for the one who takes over",
             "room = min(room, self._room(switch.to, self._read(p, switch.to)[0]))",
             "room = room + 0"),
        ],
    ),
    "replay.py": (
        HANDED,
        [("a task begun twice", "if not once or first[t] == p", "if True or first[t] == p")],
    ),
}  # fmt: skip
