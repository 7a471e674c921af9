"""Bugs in what a model is told to write, and in what an evaluation is of and says."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

BUGS: Bugs = {
    "protocol.py": (
        ("tests/test_prompts.py",),
        [
            ("own tags unread", "or _blocks(rest, own)", "or []"),
            ("own tags read before ours", "ACTION.findall(rest) or _blocks(rest, own)",
             "_blocks(rest, own) or ACTION.findall(rest)"),
            ("own tags left untold", 'own or ("action",)', '("action",)'),
        ],
    ),
    "build.py": (
        ("tests/test_prompts.py",),
        [
            ("the format untold", "[*rules, protocol.told(tags)]", "rules"),
            ("own tags forgotten", "        tags=tags,\n", ""),
        ],
    ),
    "envs/lazy.py": (
        ("tests/envs/test_search_qa_files.py", "tests/envs/test_household_files.py"),
        [
            ("families one after the other", "(rounds[i], first[families[i]])",
             "(first[families[i]], rounds[i])"),
        ],
    ),
    "envs/search_qa/suite.py": (
        ("tests/envs/test_search_qa_files.py",),
        [("a corpus known by its name alone", "-{path.stat().st_size}", "")],
    ),
    "evaluate.py": (
        ("tests/test_evaluate.py", "tests/envs/test_search_qa_files.py",
         "tests/envs/test_travelplanner_suite.py"),
        [
            ("a panel that knows no corpus", "suite.identity().encode()", 'b""'),
            ("scores of what broke", "0.0 if e.stop.broken else e.score or 0.0", "e.score or 0.0"),
            ("a certain mean of equal scores", "if min(scores) == max(scores):", "if n == 1:"),
            ("half the interval", "z * stdev(scores)", "stdev(scores)"),
            ("the suite's numbers forgotten", "hint=hint, summary=summary)", "hint=hint)"),
        ],
    ),
    "tables.py": (
        ("tests/test_tables.py",),
        [("scores that repeat success", "e.scores and e.scores != e.won", "e.scores")],
    ),
    "contexts.py": (
        ("tests/test_words.py",),
        [
            ("what was admissible once", "text if self.render is with_actions else self.render",
             "self.render"),
            ("only texts of the past", "text if self.render is with_actions else self.render",
             "text"),
        ],
    ),
    "envs/travelplanner/suite.py": (
        ("tests/envs/test_travelplanner_suite.py",),
        [("plans of broken episodes", "() if episode.stop.broken else episode.turns",
          "episode.turns")],
    ),
    "envs/household/gamefile.py": (
        ("tests/envs/test_household_files.py",),
        [("games read again and again", "@lru_cache(maxsize=8)\n", "")],
    ),
}  # fmt: skip
