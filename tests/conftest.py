"""Settings of all tests: one thread for torch, no GPU, repeatable examples in CI, and markers.

`nightly` marks what even `make test` has no time for: NIGHTLY=1 runs it.
`slow` marks tests that `make check` leaves out. A test gets it from its folder or file (SLOW), from
a module that starts processes, or by `@pytest.mark.slow`. `gpu` marks tests that need a GPU; they
run with `pytest -m gpu` alone, because every other run hides the GPUs.
"""

import os
import shutil
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

# The comparison with TextWorld runs in an environment of its own, which has neither.
if find_spec("torch"):
    import torch

    torch.set_num_threads(1)

if find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("here", deadline=None, max_examples=40)
    settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "here")

TESTS = Path(__file__).parent
# doctests import every module, and this one is a server of a package that may be missing
collect_ignore = [] if find_spec("mcp") else ["support/mcp_server.py"]
SLOW = (
    *("algorithms/test_scored.py", "cli/test_bench.py", "cli/test_dry_run.py"),
    "cli/test_plan.py",
    *("evaluation/test_statistics.py", "policies/test_chat_endpoint.py", "policies/test_http.py"),
    *("policies/test_serve.py", "policies/test_vllm.py", "rollout/test_conversations.py"),
    *("policies/test_shared_prefix.py", "viewer/test_browser.py", "viewer/test_server.py"),
    *("faults", "fuzz", "parity", "repo", "runs", "studies", "worlds"),
    *(
        "envs/test_agent_endpoint.py",
        "rollout/test_agent_episodes.py",
        "cli/test_check_agent.py",
        "envs/test_agent_frameworks.py",
        "envs/test_tool_suite.py",
        "envs/test_mcp.py",
    ),
    *("api/test_examples.py", "cli/test_check_env.py", "mutation", "objective/test_invariance.py"),
    *("policies/test_kv_budget.py", "policies/test_lora_and_memory.py"),
    *("policies/test_plain_learning.py", "policies/test_plain_path.py"),
    *("policies/test_pretend_cuda", "policies/test_reference_path.py"),
    "policies/test_translated.py",
    *("cli/test_update_memory.py", "policies/test_real_model.py"),
    *("rollout/test_task_sampling.py", "training/test_ranks.py", "training/test_transformer.py"),
)
"""Folders and files of tests/ whose tests are slow: suites, whole runs, other programs."""
SHARED_MEMORY, ROOM = Path("/dev/shm"), 4 << 30
"""A file system in memory, where the machine has one, and what it must have free in bytes."""
STARTS_PROCESSES = ("subprocess", "multiprocessing", "ProcessPool")


def pytest_configure(config: pytest.Config) -> None:
    # runs are signed with a secret of this user's, which tests keep out of the home folder
    os.environ.setdefault(
        "TUTELAGE_SECRET_FILE", str(Path(tempfile.gettempdir()) / f"tutelage-tests-{os.getuid()}")
    )
    config.addinivalue_line("markers", "slow: left out of `make check`")
    config.addinivalue_line("markers", "nightly: run where NIGHTLY is set alone")
    config.addinivalue_line("markers", "gpu: needs a GPU; run with `pytest -m gpu`")
    # Ctrl-C and closed terminals are tested; processes in the background ignore the one, those of
    # nohup the other
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Tests write thousands of small files and sync them: in memory that takes no time.
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(SHARED_MEMORY))
    if config.option.markexpr != "gpu":
        # Before the first call of CUDA, which is when torch reads it.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make check` does not even import slow files: collecting everything takes half a minute."""
    slow = in_slow_file(collection_path) and config.option.markexpr == "not slow"
    return True if slow else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            item.add_marker(pytest.mark.skip(reason="the GPUs are hidden: run pytest -m gpu"))
        if item.get_closest_marker("nightly") and not os.environ.get("NIGHTLY"):
            item.add_marker(pytest.mark.skip(reason="for the night: make suite-nightly"))
        if is_slow(item):
            item.add_marker(pytest.mark.slow)


def is_slow(item: pytest.Item) -> bool:
    if not item.path.is_relative_to(TESTS):
        return False  # a doctest of src/
    module = getattr(item, "module", None)
    return in_slow_file(item.path) or any(hasattr(module, word) for word in STARTS_PROCESSES)


def in_slow_file(path: Path) -> bool:
    return path.is_relative_to(TESTS) and path.relative_to(TESTS).as_posix().startswith(SLOW)
