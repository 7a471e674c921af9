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
            ("never rounded", 'EXACT, ROUNDED = "ieee", "bf16"', 'EXACT, ROUNDED = "ieee", "ieee"'),
            ("rounded in float32", '(kind == "float32" and exact())', 'kind == "float32"'),
            ("float32 as torch has it", '(kind == "float32" and exact())', "False"),
            (
                "entries that bfloat16 holds",
                "torch.full((rows, DEPTH), 1 + 2**-12)",
                "torch.full((rows, DEPTH), 1.0)",
            ),
            ("a probe without leave", "    with _leave(True):\n", "    with _leave(False):\n"),
            (
                "a probe of small products",
                "PROBES: Final = (4, 64, 1024)",
                "PROBES: Final = (4, 64)",
            ),
            (
                "oneDNN where there is none",
                "        return False\n    with _leave",
                "        pass\n    with _leave",
            ),
            ("every shape is kept", "    forget_shapes()\n", "    pass\n"),
            (
                "the user's choice of shapes",
                "os.environ.setdefault(name, SHAPES)",
                "os.environ[name] = SHAPES",
            ),
            (
                "one of two caches",
                '"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"',
                '"ONEDNN_PRIMITIVE_CACHE_CAPACITY",',
            ),
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
