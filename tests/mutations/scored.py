"""Bugs in which tokens a step scores."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

SCORED = ("tests/algorithms/test_scored.py",)

BUGS: Bugs = {
    "policies/compare.py": (
        ("tests/policies/test_follow.py",),
        [
            (
                "every turn from its beginning",
                "held, row = engine._keep(at, requests[i])",
                "held, row = 0",
            ),
            (
                "turns that an engine forgets",
                "row.ids, row.request = ids, None",
                "row.ids, row.request = (), None",
            ),
            (
                "hidden states of the tokens themselves",
                "[-len(sample.tokens) :]",
                "[: len(sample.tokens)]",
            ),
            ("rows that moved and are still read", "    engine._settle()\n", ""),
        ],
    ),
    "lazy.py": (
        (*SCORED, "tests/test_transformer.py"),
        [
            (
                "a head that follows the update",
                "heads.append(of.head.clone())",
                "heads.append(of.head)",
            ),
            (
                "views scored again and again",
                "missing = wanted & ~self._scored(name)",
                "missing = wanted",
            ),
            (
                "what a loss will read is taken apart",
                "tokens | self._asked.get(name, self._nothing)\n        missing",
                "tokens\n        missing",
            ),
            (
                "scores of what was added first",
                "start = 0 if held is None else len(held)",
                "start = 0",
            ),
            ("twins on their own", "if (shared := missing & alike).any():", "if False:"),
            ("tokens that were not scored", "if (place < 0).any():", "if False:"),
        ],
    ),
    "step.py": (
        SCORED,
        [
            ("a teacher of tokens that weigh nothing", "second(s.within(scale != 0))", "second(s)"),
            ("a teacher whose schedule is 0", "if now == 0:", "if False:"),
            (
                "statistics of some tokens",
                "self.of(step if self.tokenwise else step.whole())",
                "self.of(step)",
            ),
        ],
    ),
    "trainer.py": (
        SCORED,
        [
            (
                "rows that go on after all that counts",
                "bisect_left(starts, until), until)",
                "row.end, row.until)",
            ),
            (
                "a turn that goes on after all that counts",
                "tokens=last)",
                "tokens=made[-1].tokens)",
            ),
            ("padding that nobody counts", "if padded and made else size", "if False else size"),
            ("views of two policies alike", "if views[other].policy != view.policy:", "if False:"),
            ("views of two prompts alike", "if mine.prompt == theirs.prompt:", "if True:"),
            ("a live view scored twice", "live[twin] if twin else", "live[twin] if False else"),
        ],
    ),
}
