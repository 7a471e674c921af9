"""Environments that were written for something else, as suites: a file for each kind.

own         a class of yours with `reset` and `step`
gymnasium   a Gymnasium environment with texts or names for what it shows and takes
gem         a GEM environment (axon-rl/gem)
openenv     a session with an OpenEnv server (meta-pytorch/OpenEnv)
verifiers   a taskset of verifiers (PrimeIntellect-ai/verifiers)

Each imports its package when the first environment is made, and never before.
"""
