"""Bugs in privileged information: `hints`, `hinting`, `penalties`, Skill-GRPO."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

HINTS = ("tests/test_hints.py",)

BUGS: Bugs = {
    "hints/kinds.py": (
        HINTS,
        [
            (
                "arguments told with actions",
                "words = [step if whole else",
                "words = [step if True else",
            ),
            (
                "kinds in an order of their own",
                "for part in parts_of(hint):\n            if part.kind",
                "for part in sorted(parts_of(hint)):\n            if part.kind",
            ),
            (
                "texts of one kind for another",
                "self.kept[task.id, part] = _text(suite, task, part, self)",
                'self.kept[task.id, part] = _text(suite, task, Part("plan"), self)',
            ),
            (
                "chosen skills that never change",
                'if part.kind == "written" or (part.kind == "skills" and self.way(part) == "ucb"):',
                'if part.kind == "written":',
            ),
            (
                "keywords sought in what the room lists",
                "said = suite.describe(task) if isinstance(suite, Describes)",
                'said = " ".join(suite.make().reset(task).actions) if isinstance(suite, Describes)',
            ),
            (
                "general skills where nothing matches",
                "if not found and not hints.allow_general:",
                "if False:",
            ),
            (
                "an answer that is not there",
                'return f"The answer: {answer}" if answer else ""',
                'return f"The answer: {answer}"',
            ),
            (
                "the configured retrieval for all",
                "return part.retrieval or self.retrieval",
                "return self.retrieval",
            ),
            (
                "a general file left out",
                "(hints.bank.general, *(s.text for s in found))",
                '("", *(s.text for s in found))',
            ),
        ],
    ),
    "hints/retrieval.py": (
        HINTS,
        [
            ("every file that matches", "return found[:1]", "return found"),
            ("keywords inside words", 'rf"\\b{re.escape(part)}\\b"', "re.escape(part)"),
            ("any part of a keyword", "return all(re.search(", "return any(re.search("),
            ("a similarity of nothing", "if best > 0 else []", "if True else []"),
            (
                "words that all files have",
                "math.log(len(bags) / sum(",
                "math.log(1 + len(bags) / sum(",
            ),
            (
                "a cosine without its norm",
                "return dot / whole if whole else 0.0",
                "return dot if whole else 0.0",
            ),
            ("drawn anew each time", 'random.Random(f"skill for {task.id}")', "random.Random()"),
        ],
    ),
    "hints/bandit.py": (
        HINTS,
        [
            (
                "no bonus",
                "arm.mean + math.sqrt(2) * math.sqrt(math.log(whole) / arm.chosen)",
                "arm.mean",
            ),
            ("another constant", "math.sqrt(2) * math.sqrt(math.log", "2.0 * math.sqrt(math.log"),
            ("choices that do not count at once", ".chosen += 1", ".chosen += 0"),
            (
                "a sum for a mean",
                "return self.total / self.rewarded if self.rewarded else 0.0",
                "return self.total",
            ),
            (
                "families together",
                "return self.arms.setdefault(family, {})",
                'return self.arms.setdefault("", {})',
            ),
            ("a task of a step twice", "if task.id not in self.now:", "if True:"),
            ("rewards forgotten", "arm.total += reward", "arm.total += 0.0"),
            ("rewards not restored", 'total=float(arm["total"])', "total=0.0"),
            ("the last of the unused", "return unused[0]", "return unused[-1]"),
        ],
    ),
    "hints/bank.py": (
        HINTS,
        [
            (
                "files in the order of names",
                "order = [*index, *(name for name in texts if name not in index)]",
                "order = sorted(texts)",
            ),
            ("an empty file accepted", "    if not text:\n", "    if False:\n"),
        ],
    ),
    "hints/written.py": (
        HINTS,
        [
            ("a sentence cut in half", "if not ended and ends:", "if False:"),
            ("hints of any length", "while tokens(words) > most:", "while False:"),
            ("thoughts kept", 'THINKING.sub(" ", text)', "text"),
            (
                "tags kept",
                'TAG.sub(" ", THINKING.sub(" ", text)).split()',
                'THINKING.sub(" ", text).split()',
            ),
        ],
    ),
    "hinting.py": (
        HINTS,
        [
            ("written again and again", "if task.id not in hints.written}", "}"),
            (
                "one draw for all tasks",
                'seed_of("written", seed, task.id)',
                'seed_of("written", seed)',
            ),
            ("evaluations that teach", "if step >= 0 and mine.bank", "if mine.bank"),
            ("copies added up", "sum(x) / len(x)", "sum(x)"),
            (
                "penalties held against a skill",
                "paid = sum(turn.reward for turn",
                "paid = sum(turn.reward - turn.penalty for turn",
            ),
            ("room for the prompt alone", "if length + need > room:", "if length > room:"),
            ("one token too many", "if length + need > room:", "if length + need >= room:"),
            (
                "what will be written forgotten",
                "length = len(first) + unwritten",
                "length = len(first)",
            ),
            (
                "only the first skill tried",
                "    for skill in skills:\n",
                "    for skill in skills[:1]:\n",
            ),
            ("hints that say nothing", "        if empty:\n", "        if False:\n"),
            (
                "a rehearsal that is kept",
                "own = replace(stage.hints, written=dict(stage.hints.written), kept={})",
                "own = stage.hints",
            ),
            ("asked without a plan", "        if not plan:\n            continue\n", ""),
            (
                "tasks counted once for each episode",
                "for task in {task.id: task for task in tasks}.values():",
                "for task in tasks:",
            ),
        ],
    ),
    "evaluate.py": (
        HINTS,
        [
            (
                "an evaluation that is told nothing",
                'shown = {"hinted": View(hint=hint)}',
                'shown = {"hinted": View()}',
            )
        ],
    ),
    "algorithms/skill_grpo.py": (
        HINTS,
        [
            ("the plain view trained", "replace(t, trains=SKILLED)", "replace(t)"),
            ("a reference without skills", "replace(view, hint=hint)", "view"),
            ("the plain view acts", "actors={SKILLED: constant(1.0)}", "actors={}"),
        ],
    ),
    "penalties.py": (
        ("tests/test_penalties.py",),
        [
            (
                "words inside words",
                'rf"\\b{re.escape(word.strip())}\\b"',
                "re.escape(word.strip())",
            ),
            (
                "lost episodes fined for length",
                "if not episode.won or not episode.turns:",
                "if not episode.turns:",
            ),
            ("a sum over turns", "min(most, sum(values) / len(values))", "min(most, sum(values))"),
            (
                "no bound",
                "return min(most, sum(values) / len(values))",
                "return sum(values) / len(values)",
            ),
            (
                "a straight line",
                "return (1 - math.cos(math.pi * min(max(x, 0.0), 1.0))) / 2",
                "return min(max(x, 0.0), 1.0)",
            ),
        ],
    ),
}
