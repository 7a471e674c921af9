"""Adapters that present environments of other libraries as suites, one file per library.

own         a user's class with `reset` and `step`
gymnasium   a Gymnasium environment with texts or names for what it shows and takes
gem         a GEM environment (axon-rl/gem)
openenv     a session on an OpenEnv server (meta-pytorch/OpenEnv)
verifiers   a taskset of verifiers (PrimeIntellect-ai/verifiers)

Each imports its package when the first environment is made, and never before.
"""
