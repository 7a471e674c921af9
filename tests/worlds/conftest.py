"""A script for another Python, with the original's packages, is no module of tests."""

collect_ignore = ["travelplanner_original.py"]
