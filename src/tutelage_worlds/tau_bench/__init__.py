"""tau_bench: tau-bench's customer service (arXiv:2406.12045) in pure Python."""

from tutelage_worlds.tau_bench.customers import STOP, Customer, Scripted, Simulated
from tutelage_worlds.tau_bench.env import TauBenchEnv
from tutelage_worlds.tau_bench.files import load
from tutelage_worlds.tau_bench.generate import scenario, shop
from tutelage_worlds.tau_bench.suite import TauBench, needs

__all__ = [
    "STOP",
    "Customer",
    "Scripted",
    "Simulated",
    "TauBench",
    "TauBenchEnv",
    "load",
    "needs",
    "scenario",
    "shop",
]
