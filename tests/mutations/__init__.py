"""Bugs by file: (tests that must notice, [(name, text as it is, text as it would be)])."""
