"""Adds the repository's examples/ to the wheel, as tutelage/examples. All else: pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

EXAMPLES = Path(__file__).resolve().parent / "examples"


class BuildWithExamples(build_py):
    def run(self) -> None:
        super().run()
        # An editable install reads examples/ where it lies.
        if not self.editable_mode:
            target = Path(self.build_lib) / "tutelage" / "examples"
            shutil.copytree(
                EXAMPLES,
                target,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__", "runs"),
            )


setup(cmdclass={"build_py": BuildWithExamples})
