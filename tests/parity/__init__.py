"""Parity of household with TextWorld, ALFWorld's engine."""
