"""What attacks ascend, per image, besides the cross-entropy: margins and the DLR losses.

Logits are (B, K) of any precision with K >= 2, labels and targets (B,); results are (B,) float32.
The losses are above zero, or equal to it, exactly where the label has lost to the other class they
look at.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[..., Tensor]
"""Called with logits, labels and, if it is targeted, targets: (B,) what an attack ascends."""


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit minus the label's. Carlini & Wagner, arXiv 1608.04644, f_6 unclipped."""
    logits = logits.float()
    others = logits.scatter(-1, labels[:, None], -torch.inf)
    return others.amax(-1) - of_class(logits, labels)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the label's."""
    logits = logits.float()
    return of_class(logits, targets) - of_class(logits, labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio: the margin over the first minus the third largest logit.

    Croce & Hein 2020, arXiv 2003.01690, eq. 6. For K = 2 there is no third: the margin.
    """
    if logits.shape[-1] < 3:
        return margin(logits, labels)
    largest = logits.float().topk(3).values
    return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The targeted margin over the largest logit minus the mean of the third and fourth largest.

    Croce & Hein 2020, arXiv 2003.01690, eq. 7. For K < 4 there is no fourth: the targeted margin.
    """
    if logits.shape[-1] < 4:
        return targeted_margin(logits, labels, targets)
    largest = logits.float().topk(4).values
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return targeted_margin(logits, labels, targets) / (spread + 1e-12)


def likely_targets(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """(B, min(count, K - 1)) the most likely classes other than the label, best first.

    Raises ValueError for fewer than two classes, where there is no other.
    """
    classes = logits.shape[-1]
    if classes < 2:
        raise ValueError(f"an attack needs at least two classes, not {classes}")
    others = logits.float().scatter(-1, labels[:, None], -torch.inf)
    return others.topk(min(count, classes - 1)).indices


def of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """(B,) the logit of each image's own class."""
    return logits.gather(-1, classes[:, None]).squeeze(-1)
