"""Bugs in what rows have in common: computed once, attended to, and given its gradient."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

TESTS = ("tests/policies/test_prefixes.py",)
BUGS: Bugs = {
    "policies/prefixes.py": (
        TESTS,
        [
            ("a head that takes what predicts", "default=len(row.ids)) - 1 for row in rows)",
             "default=len(row.ids)) for row in rows)"),
            ("a head that is read", "return min(_unread(rows), *", "return min(10**9, *"),
            ("a use of what is read", "fits = min(_unread(rows), *", "fits = min(10**9, *"),
            ("a row that is alone", "    if len(rows) < 2:\n        return 0\n", ""),
            ("the first row's word for all", "for row in rows))\n        if fits",
             "for row in rows[:1]))\n        if fits"),
            ("anything is used", "best, most = None, LEAST - 1", "best, most = None, 0"),
            ("the first that fits", "best, most = prefix, fits",
             "best, most = best or prefix, fits"),
            ("the whole of what fits in part", "best.upto(most)", "best"),
            ("the sums of one part", "whole = torch.logaddexp(far_sum, near_sum)",
             "whole = near_sum"),
            ("a part of its own sum", "(near_sum - whole).exp()", "(near_sum - near_sum).exp()"),
            ("a gradient of one part", "own = far[0].reshape(query.shape) + near[0]",
             "own = near[0]"),
            ("gradients of parts with their own sums",
             "fold(made), fold(whole), 0.0, False,", "fold(made), fold(whole) * 0.5, 0.0, False,"),
            ("what comes later", "0.0, True, scale=scaling)", "0.0, False, scale=scaling)"),
            ("keys of one query head", "x.reshape(1, k, n, *x.shape[2:]).sum(2)",
             "x.reshape(1, k, n, *x.shape[2:])[:, :, 0]"),
            ("a gradient that stays", "    if pairs:\n", "    if False:\n"),
            ("sums in two bytes", "torch.promote_types(x.dtype, torch.float32)", "x.dtype"),
        ],
    ),
    "policies/attention.py": (
        TESTS,
        [
            ("nothing before",
             "before = None if prefix is None else prefix.leaves[module.layer_idx]",
             "before = None"),
        ],
    ),
    "policies/hf.py": (
        TESTS,
        [
            ("positions that begin again", "torch.arange(known, known + n, device=self.device)",
             "torch.arange(n, device=self.device)"),
            ("tokens twice", "for t in row.ids[known:]]", "for t in row.ids]"),
            ("starts that forget it", "[at - known for at in", "[at for at in"),
            ("a gradient nobody sends", "        made.send()\n", ""),
            ("a prefix that stays", "            self.prefixes.remove(made)\n",
             "            pass\n"),
            ("padded rows that share", "return not self.padded and self.device",
             "return self.device"),
            ("one for each call", "if torch.is_grad_enabled() or size < LEAST or",
             "if size < LEAST or"),
            ("none for a call", "if torch.is_grad_enabled() or size < LEAST or", "if True or"),
            ("another where one is known",
             "size < LEAST or (found is not None and len(found.ids) == size)",
             "size < LEAST"),
        ],
    ),
    "trainer.py": (
        TESTS,
        [
            ("steps that share nothing", "if isinstance(policy, Shares):", "if False:"),
            ("rows of other views", "if name in needed for row in part]", "for row in part]"),
            ("followed views with gradient", "torch.set_grad_enabled(name not in followed)",
             "torch.set_grad_enabled(True)"),
            ("followed views first", "key=lambda name: (name in followed, name)",
             "key=lambda name: (name not in followed, name)"),
        ],
    ),
}  # fmt: skip
