"""One thread for torch; hypothesis without deadlines, and in CI the same examples every time."""

import os
from importlib.util import find_spec

# the comparison with TextWorld runs in an environment of its own, which has neither
if find_spec("torch"):
    import torch

    torch.set_num_threads(1)

if find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("here", deadline=None, max_examples=40)
    settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "here")
