"""Does a stronger attack break so many more images that gradients may be masked, beyond noise?"""

from __future__ import annotations

from typing import Any

from trainables.metrics import masking
from trainables.metrics.intervals import wilson


def fall(
    *, before: str, after: str, evaluation: dict[str, Any], final: dict[str, Any]
) -> dict[str, float] | None:
    """As `trainables.metrics.masking.fall`, but `masked` is 1 only if the fall is beyond noise, too.

    Both accuracies are of the same images, of which the share that was withstood before and is not after is
    binomial: the lower end of Wilson's 95 % interval of it has to be above `masking.MASKED`.
    """
    found = masking.fall(before=before, after=after, evaluation=evaluation, final=final)
    if found is None:
        return None
    fallen = max(found["before"] - found["after"], 0.0)
    low = wilson(fallen * found["images"], int(found["images"])).low
    return found | {"masked": float(low > masking.MASKED)}
