"""Sweeps of adversarial fine-tuning over a Ray cluster: search, compare, take the Pareto set.

from sweeper import Sweep
results = Sweep.from_yaml("search_spaces/dirichlet.yaml").run()
results.pareto()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.api import Sweep
    from sweeper.results import Comparison, Results
    from sweeper.run import Run

__all__ = ["Comparison", "Results", "Run", "Sweep"]


def __getattr__(name: str) -> Any:
    import importlib

    homes = {
        "Comparison": "sweeper.results",
        "Results": "sweeper.results",
        "Run": "sweeper.run",
        "Sweep": "sweeper.api",
    }
    if name not in homes:
        raise AttributeError(f"module 'sweeper' has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)
