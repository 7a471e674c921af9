"""Bugs in what a study says: means over evaluations, intervals over seeds and tasks."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

BUGS: Bugs = {
    "compare.py": (
        ("tests/test_compare.py",),
        [
            (
                "the first evaluations taken for the last",
                "evaluations[-last:]",
                "evaluations[:last]",
            ),
            ("the sum of the last evaluations", "[sum(task) / last for", "[float(sum(task)) for"),
            ("tasks' effects taken for seeds'", "table.mean(1) - mean", "table.mean(0) - mean"),
            ("seeds never drawn", "    if len(values) > 1:\n", "    if len(values) > 99:\n"),
            (
                "effects that are not centred",
                "_drawn(table.mean(0) - mean, draws",
                "_drawn(table.mean(0), draws",
            ),
            (
                "resampling a few without making up for it",
                "return expansion * effects[picked]",
                "return effects[picked]",
            ),
            (
                "one degree of freedom too many",
                "student_t(n - 1) / Z95",
                "student_t(n) / Z95",
            ),
            ("variance not made up for", "math.sqrt(n / (n - 1)) * student_t", "student_t"),
            ("a 90 % interval", "[0.025, 0.975]", "[0.05, 0.95]"),
            ("the same draw for all", "manual_seed(seed)", "manual_seed(0)"),
            ("single draws instead of means", "effects[picked].mean(1)", "effects[picked][:, 0]"),
            ("a minus b", "[y - x for x, y in", "[x - y for x, y in"),
            ("certainty where all is won", "max(found.high, middle + half)", "found.high"),
            ("certainty where all is lost", "min(found.low, middle - half)", "found.low"),
            (
                "Wilson's interval without its square",
                "(z2 / (2 * n)) ** 2) / (1 + z2 / n)",
                "z2 / (2 * n)) / (1 + z2 / n)",
            ),
            (
                "a difference that touches zero",
                "return not self.low <= 0 <= self.high",
                "return not self.low < 0 < self.high",
            ),
            ("seeds compared that are not the same", "!= [len(row) for row in b]", "== []"),
        ],
    ),
}
