"""The sweep over every causal language model that transformers lists."""
