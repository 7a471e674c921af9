"""Bugs in composed algorithms: `words`, `compose`, the follow-ups, hindsight, what is printed."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

COMPOSE = ("tests/algorithms/test_compose.py",)
FOLLOWUPS = ("tests/algorithms/test_followups.py",)

BUGS: Bugs = {
    "words/reader.py": (
        COMPOSE,
        [
            ("a difference that adds",
             'self.product(Value("number", -1), b) if _minus(node) else b', "b"),
            ("a schedule taken at step 0", "return Value(kind, by * _signal(signal))",
             "return Value(kind, (by if factor.kind == 'number' else by(0)) * _signal(signal))"),
            ("signals that add for multiply", "return Value(kind, _signal(a) * _signal(b))",
             "return Value(kind, _signal(a) + _signal(b))"),
            ("a view that is not there", "if isinstance(view, str) and view not in",
             "if False and view not in"),
            ("steps that are cut off", "of = max(1, round(of))", "of = int(of)"),
            ("settings of a divergence dropped", "made = partial(word.call, **given)",
             "made = partial(word.call)"),
            ("an argument given twice", "if name in made:", "if False:"),
            ("the place in bytes", 'self.text.encode()[: getattr(node, "col_offset", column)]'
             '.decode(errors="ignore")', 'self.text[: getattr(node, "col_offset", column)]'),
            ("truth for a number",
             "return isinstance(value, kinds) and not isinstance(value, bool)",
             "return isinstance(value, kinds)"),
            ("any gate adds", "if made.kind not in SUMS:", "if False:"),
        ],
    ),
    "words/registry.py": (
        COMPOSE,
        [
            ("words of imported functions too", "function.__module__ == module.__name__",
             "bool(function.__module__)"),
            ("as_schedule is a word", "if function is schedules.as_schedule:", "if False:"),
        ],
    ),
    "algorithms/compose.py": (
        COMPOSE,
        [
            ("a gate that is read and dropped", "        elif fits(value, hints[key]):",
             "            if key == 'gate':\n                del made[key]\n"
             "        elif fits(value, hints[key]):"),
            ("a required part missing", "and key not in made:", "and False:"),
            ("terms of unknown views", 'if field.name in ("teacher", "trains"):', "if False:"),
            ("actors of unknown views", '_known(n, named, "actors"): reader', "n: reader"),
            ("reductions ignored", 'reduction=reader.read(reduction, "signal", "reduction")',
             'reduction=reader.read("token_mean()", "signal", "reduction")'),
        ],
    ),
    "hindsight.py": (
        ("tests/test_hindsight.py",),
        [
            ("winners told of themselves", "if episode.won or best is None:", "if best is None:"),
            ("the present told as the future", "episode.turns[turn + 1 : turn + 1 + count]",
             "episode.turns[turn : turn + count]"),
            ("actions unmasked", '*("___" for _ in rest)', "*rest"),
            ("observations not withheld", "WITHHELD if ablated else", "WITHHELD if False else"),
        ],
    ),
    "policies/prompts.py": (
        ("tests/test_hindsight.py", "tests/test_shown.py"),
        [
            ("hindsight of the first turn for all", 'text = told[k] if told else ""',
             'text = told[0] if told else ""'),
            ("the hint replaced by hindsight", "(self.hint.strip(), text.strip())",
             "(text.strip(),)"),
        ],
    ),
    "trainer.py": (
        ("tests/test_hindsight.py",),
        [
            ("a group of one", "read(view, prompts(view, e.task), e, groups[e.group])",
             "read(view, prompts(view, e.task), e, [e])"),
            ("hindsight forgotten", "return prompter.samples(episode, told)",
             "return prompter.samples(episode)"),
        ],
    ),
    "signals/followups.py": (
        FOLLOWUPS,
        [
            ("support without the credit's sign", "(2 * torch.sigmoid(a(s).sign() * said(s)))",
             "(2 * torch.sigmoid(said(s)))"),
            ("evidence averaged", "told = segment_sum(said(s), turn, len(episode))",
             "told = segment_mean(said(s), turn, len(episode))"),
            ("returns for successes", "segment_mean(b.won.float(), b.group, len(b.group))",
             "segment_mean(b.outcome.float(), b.group, len(b.group))"),
            ("the views swapped", "gap(full, ablated)", "gap(ablated, full)"),
            ("the most certain turns", "unsure = segment_mean(-s.batch.logp",
             "unsure = segment_mean(s.batch.logp"),
            ("all turns", "maths.most(unsure, episode, len(s.batch.group), share)[turn]", "1.0"),
            ("a score over the step", "segment_mean(said, b.turn, len(b.episode))[b.turn]",
             "said.mean()"),
            ("the sampler for the student", "ratio(s.scores[student].logp, b.logp)",
             "ratio(b.logp, s.scores[student].logp)"),
            ("every conflict kept", "(worth < 0) & (towards < 0)", "(worth < 0) | (towards < 0)"),
            ("whitened over the step", "group = s.batch.group[s.batch.owner]",
             "group = torch.zeros_like(s.batch.owner)"),
        ],
    ),
    "maths/followups.py": (
        FOLLOWUPS,
        [
            ("turns scaled by their strength", "target / strength.clamp(min=1e-12)",
             "strength / target.clamp(min=1e-12)"),
            ("evidence that never fades", "future_sum(evidence.flip(0), episode.flip(0), gamma)",
             "future_sum(evidence.flip(0), episode.flip(0), 1.0)"),
            ("beliefs that leak between episodes", "torch.where(same, after[:-1], before[1:])",
             "after[:-1]"),
            ("a share rounded down", "(share * count - 1e-6).ceil()",
             "(share * count + 1e-6).floor()"),
            ("confidence for its complement", "mean(confidence) - mean(1 - confidence)",
             "mean(1 - confidence) - mean(confidence)"),
            ("windows over the turn's end", "inside = inside & (turn[places] == turn[:, None])",
             "inside = inside & (places >= 0)"),
            ("a gate that opens as support falls", "(-slope / size).clamp(min=0)",
             "(slope / size).clamp(min=0)"),
            ("always the wide window", "mixed = ((variance - calm) / (wild - calm)).clamp(0, 1)",
             "mixed = torch.ones_like(variance)"),
            ("the lower median", "(ranked[low] + ranked[high]) / 2", "ranked[low]"),
            ("one spread for both sides", "torch.where(below, spread(below), spread(~below))",
             "spread(~below)"),
            ("weight that is not kept", "(before / after)[turn] * gate * rank", "gate * rank"),
        ],
    ),
    "meanings.py": (
        ("tests/test_tables.py",),
        [("other algorithms' settings as a meaning", "and not _elsewhere(clause)", "")],
    ),
    "tables.py": (
        ("tests/test_tables.py",),
        [("formulas run together", 'if not any(line.startswith(" ") or " = " in line',
          'if not any(line.startswith("#")')],
    ),
}  # fmt: skip
