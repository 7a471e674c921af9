"""Exclude the script that runs in the original's Python from collection."""

collect_ignore = ["travelplanner_original.py"]
