"""Bugs in threads, how they wait, and how matrices are multiplied."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

TESTS = ("tests/test_processor.py",)
BUGS: Bugs = {
    "processor.py": (
        TESTS,
        [
            (
                "the user's own choice is overwritten",
                'os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")',
                'os.environ["OMP_WAIT_POLICY"] = "PASSIVE"',
            ),
            ("a quota is rounded up", "math.floor(quota)", "math.ceil(quota)"),
            ("no thread at all", "max(1, math.floor(quota))", "math.floor(quota)"),
            ("more threads than torch's", "min(own, max(1,", "max(own, min(999,"),
            (
                "a quota against what the user said",
                '"OMP_NUM_THREADS" in os.environ or not quota',
                "not quota",
            ),
            ("what was asked for is not taken", "        return wanted\n", "        pass\n"),
            (
                "products are not put back",
                "        settings.fp32_precision = before\n",
                "        pass\n",
            ),
            ("never rounded", '"bfloat16": "bf16"', '"bfloat16": "ieee"'),
        ],
    ),
    "cli.py": (
        TESTS,
        [("threads spin", "    wait_passively()\n", "    pass\n")],
    ),
    "run.py": (
        TESTS,
        [
            (
                "a run multiplies as torch does",
                "with processor.products(run.matmul):",
                'with processor.products("float32"):',
            ),
            (
                "threads are not put back",
                "        torch.set_num_threads(before[0])\n",
                "        pass\n",
            ),
        ],
    ),
}
