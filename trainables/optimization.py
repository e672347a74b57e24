"""The optimiser, its learning-rate schedule, and the moving average of a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trainables.config import OptimizerConfig
    from trainables.models import PixelClip


def build_optimizer(
    config: OptimizerConfig, parameters: list[torch.nn.Parameter], *, fused: bool = False
) -> torch.optim.Optimizer:
    if config.name == "adamw":
        return torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused or None
        )
    return torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=fused or None,
    )


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, total_steps: int
) -> None:
    """Linear warm-up over `warmup_steps`, then cosine to zero at `total_steps`."""
    if step < config.warmup_steps:
        factor = (step + 1) / config.warmup_steps
    else:
        rest = max(1, total_steps - config.warmup_steps)
        factor = 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / rest))
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * factor


@torch.no_grad()
def update_average(average: PixelClip, model: PixelClip, momentum: float) -> None:
    """average <- momentum * average + (1 - momentum) * model, for every parameter."""
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - momentum)
