"""Sweeps of adversarial fine-tuning over a Ray cluster: search, compare, take the Pareto set.

from sweeper import Sweep
run = Sweep.from_yaml("search_spaces/dirichlet.yaml").run()
run.pareto()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.api import Sweep
    from sweeper.run import Run

__all__ = ["Run", "Sweep"]


def __getattr__(name: str) -> Any:
    import importlib

    homes = {"Sweep": "sweeper.api", "Run": "sweeper.run"}
    if name not in homes:
        raise AttributeError(f"module 'sweeper' has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)
