"""What a trial must satisfy to stand on the front."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sweeper import tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Values = TypeVar("Values", float, "NDArray[np.float64]")


@dataclass(frozen=True)
class Constraint:
    """`metric >= bound` or `<=`; a relative bound is a multiple of the untrained model's value."""

    metric: str
    at_least: bool
    bound: float
    relative: bool

    def violation(self, value: float, baseline: float) -> float:
        """How far `value` is on the wrong side; 0 where the constraint holds."""
        return max(0.0, self.excess(value, baseline))

    def excess(self, value: Values, baseline: Values) -> Values:
        """As `violation`, but negative by how much is left where the constraint holds. Of arrays, too."""
        bound = self.bound * baseline if self.relative else self.bound
        return bound - value if self.at_least else value - bound

    def __str__(self) -> str:
        bound = f"{self.bound:g}" + (" * baseline" if self.relative else "")
        return f"{self.metric} {'>=' if self.at_least else '<='} {bound}"


def parse_constraint(metric: str, text: str) -> Constraint:
    match = re.fullmatch(r"\s*(>=|<=)\s*([-+.0-9eE/]+)\s*(\*\s*baseline)?\s*", text)
    bound = tree.number(match[2]) if match else None
    if match is None or bound is None:
        raise ValueError(f"can't read {text!r}; expected '>= 0.5', '<= 0.1' or '>= 0.9 * baseline'")
    return Constraint(metric=metric, at_least=match[1] == ">=", bound=bound, relative=match[3] is not None)
