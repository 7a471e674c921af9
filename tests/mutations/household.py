"""Bugs in the household's options and in TextWorld as its engine, as far as tests reach without
TextWorld; tests/parity has the rest."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

SUITE = ("tests/envs/test_household_suite.py",)

BUGS: Bugs = {
    "envs/household/suite.py": (
        SUITE,
        [
            ("asked for, not played", 'if self.engine == "textworld" else', "if False else"),
            ("engines of any name", "if self.engine not in get_args(Engine):", "if False:"),
            ("a wording that marks nothing", 'if self.engine == "textworld":  #', "if False:  #"),
        ],
    ),
    "envs/household/textworld.py": (
        SUITE, [("TextWorld is thought to be there", "if find_spec(module) is None:", "if False:")]
    ),
    "envs/household/needs.py": (
        SUITE,
        [("rules for games that have their own", 'and not options.get("games")', "")],
    ),
}  # fmt: skip
