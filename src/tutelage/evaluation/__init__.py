"""Evaluation: success rates with intervals, paired comparisons, results on disk and plots."""
