"""Agents that keep their own loop: they talk to an endpoint, and the trainer answers and records."""
