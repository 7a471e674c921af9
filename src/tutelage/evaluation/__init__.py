"""What a policy can do: success rates with intervals, paired comparisons, plots."""
