"""Bugs of how much memory keys and values may take, and of whose rows go for lack of it."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

TESTS = ("tests/policies/test_room.py",)
BUGS: Bugs = {
    "processor.py": (
        TESTS,
        [
            ("a container's limit that nobody heeds", "return min(known, default=0)",
             "return max(known, default=0)"),
        ],
    ),
    "policies/cache.py": (
        TESTS,
        [
            ("a third for each engine", "int(SHARE * whole / engines)", "int(SHARE * whole)"),
            ("a budget that cannot be set", "    if wanted:\n", "    if False:\n"),
            ("a card's budget from the machine's memory",
             'cuda = device.startswith("cuda")\n    whole', "cuda = False\n    whole"),
        ],
    ),
    "policies/slots.py": (
        TESTS,
        [
            ("long rows that double", "if long or self.count", "if self.count"),
            ("recordings that are made anew",
             "self.cache.slots >= LONG and self.recordings is None",
             "self.cache.slots >= LONG"),
            ("a row taken while its episode goes on", "if patient and request.key not in own",
             "if False and request.key not in own"),
            ("new episodes are not counted", "            owned += request.key not in own\n", ""),
            ("an owner that is not waited for",
             "patient = busy > 0 or any(request.key in own for request in self.waiting)",
             "patient = busy > 0"),
        ],
    ),
    "build.py": (
        TESTS,
        [
            ("everyone acts", "for name in actors}", "for name in there}"),
            ("models on servers take memory", "if not _away(config, name)}", "}"),
            ("a sampler's turns are the student's",
             'set() if config.policy.sampler is not None else {"self"}', '{"self"}'),
        ],
    ),
    "plan.py": (
        TESTS,
        [
            ("a plan without a budget",
             "min(rows * row, budget(device, wanted=section.cache, engines=engines))",
             "rows * row"),
            ("a plan without one row", "max(row, min(rows", "max(0, min(rows"),
        ],
    ),
    "run.py": (
        TESTS,
        [
            ("engines that do not know of each other",
             "            engines=max(1, len(build.acting(config, phases))),\n",
             "            engines=1,\n"),
        ],
    ),
}  # fmt: skip
