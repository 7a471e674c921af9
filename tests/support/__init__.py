"""Shared by tests: fake policies and servers, broken environments, tiny models, short runs."""
