"""A whole run from a configuration: assembly, loop, folder, checkpoints, self-tests."""
