"""Transformers models in this process: scoring, training and generation."""
