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
}  # fmt: skip
