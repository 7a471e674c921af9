"""Bugs of `policy.fast`: a slow twin that is a little fast, or is not taken."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

TESTS = ("tests/policies/test_twins.py",)
BUGS: Bugs = {
    "policies/slots.py": (
        TESTS,
        [
            ("a slow turn that is kept", '                row.key, row.ids = "", ()\n',
             '                row.key = ""\n'),
            ("a slow turn that copies a head", "if row.key == request.key or not self.fast:",
             "if row.key == request.key:"),
            ("a slow turn that waits for a head", "default=0) if self.fast else 0", "default=0)"),
            ("slow steps that are recorded", "if recorder is not None and fast else None",
             "if recorder is not None else None"),
        ],
    ),
    "policies/hf.py": (
        TESTS,
        [
            ("slow scores on one axis", "padded or compiled or not fast, fast",
             "padded or compiled, fast"),
            ("a second copy in a slow student", "if self.fast and self._low and not",
             "if self._low and not"),
            ("an engine that is always fast", "fast=self.fast,\n", "\n"),
        ],
    ),
    "models.py": (
        TESTS,
        [
            ("a setting that nobody reads",
             "        fast=section.fast,\n        budget=", "        budget="),
        ],
    ),
}  # fmt: skip
