"""Environments: text in, text out, one episode at a time."""
