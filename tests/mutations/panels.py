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
        ("tests/envs/test_search_qa_files.py",),
        [("a panel that knows no corpus", "suite.identity().encode()", 'b""')],
    ),
    "envs/household/gamefile.py": (
        ("tests/envs/test_household_files.py",),
        [("games read again and again", "@lru_cache(maxsize=8)\n", "")],
    ),
}  # fmt: skip
