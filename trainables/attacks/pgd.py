"""Projected gradient descent in the L-infinity ball. Madry et al., ICLR 2018, arXiv 1706.06083."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

Objective = Callable[[Tensor], Tensor]
"""Maps (B, 3, H, W) pixels in [0, 1] to (B,) what an attack ascends for each image."""


def pgd(
    objective: Objective,
    images: Tensor,
    *,
    start: Tensor,
    epsilon: float,
    step_size: float,
    steps: int,
    keep_best: bool = False,
) -> Tensor:
    """Images within `epsilon` of `images`, inside [0, 1], that ascend `objective`.

    objective: per image; it is summed, never averaged: a mean would scale the gradients by 1/B and
    push small ones to zero in low precision, and pixels with an exactly zero gradient are never
    attacked.  start: (B, 3, H, W) initial perturbation, see `uniform_start`.
    keep_best: return each image's point of highest objective instead of the last one, at the cost
    of one more forward pass. Weights receive no gradient and no graph stays attached to the result.
    """
    if epsilon == 0:
        return images
    images = images.detach()
    adversarial = (images + start).clamp(0, 1)
    best, best_value = adversarial, images.new_full((len(images),), -torch.inf)

    def remember(value: Tensor) -> None:
        nonlocal best, best_value
        better = value > best_value
        best = torch.where(better.view(-1, 1, 1, 1), adversarial, best)
        best_value = torch.where(better, value, best_value)

    for _ in range(steps):
        with torch.enable_grad():
            pixels = adversarial.clone().requires_grad_(True)
            value = objective(pixels)
            (gradient,) = torch.autograd.grad(value.sum(), pixels)
        if keep_best:
            remember(value.detach())
        moved = adversarial + step_size * gradient.sign()
        adversarial = (images + (moved - images).clamp(-epsilon, epsilon)).clamp(0, 1)
    if not keep_best:
        return adversarial
    with torch.no_grad():
        remember(objective(adversarial))
    return best


def uniform_start(images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """A uniform random perturbation in [-epsilon, epsilon], from a generator of the caller's."""
    return torch.empty_like(images).uniform_(-epsilon, epsilon, generator=generator)


def uniform_start_per_image(images: Tensor, epsilon: float, seed: int, first: int) -> Tensor:
    """As `uniform_start`, but a function of the seed and each image's own index, first, first + 1...,
    so that an evaluation does not depend on its batch size or device."""
    # numpy, because torch's CPU generator forgets all but 32 bits of a seed
    starts = [
        np.random.default_rng((seed, index)).uniform(-epsilon, epsilon, images.shape[1:])
        for index in range(first, first + len(images))
    ]
    return torch.from_numpy(np.stack(starts).astype(np.float32)).to(images.device)


@contextmanager
def attacked(model: nn.Module) -> Iterator[None]:
    """Inside: eval mode, and no weight asks for a gradient. Afterwards, every sub-module's mode and
    every parameter's flag is what it was, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
