"""Projected gradient descent in L-infinity and L2 balls. Madry et al., ICLR 2018, arXiv 1706.06083."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from trainables.attacks.monitor import Monitor
from trainables.attacks.norms import Norm, into_ball, per_image, steepest

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
    norm: Norm = "linf",
    momentum: float = 0.0,
    keep_best: bool = False,
    monitor: Monitor | None = None,
) -> Tensor:
    """Images within `epsilon` of `images`, inside [0, 1], that ascend `objective`.

    objective: per image; it is summed, never averaged: a mean would scale the gradients by 1/B and
    push small ones to zero in low precision, and pixels with an exactly zero gradient are never
    attacked.  start: (B, 3, H, W) initial perturbation, see `uniform_start`.
    epsilon, step_size: in [0, 1] pixels; for `l2` the Euclidean length over one image's values.
    momentum: in [0, 1); each step goes along the steepest direction of momentum times the step before
    plus the steepest direction of the gradient, as in FARE's released code (arXiv 2402.12336). In
    `linf` that is the gradient's sign again, unless it is zero.
    keep_best: return each image's point of highest objective instead of the last one, at the cost
    of one more forward pass. Weights receive no gradient and no graph stays attached to the result.
    """
    if epsilon == 0:
        return images
    images = images.detach()
    adversarial = into_ball(images + start, images, epsilon, norm)
    best, best_value = adversarial, images.new_full((len(images),), -torch.inf)
    velocity = torch.zeros_like(images)

    def remember(value: Tensor) -> None:
        nonlocal best, best_value
        better = value > best_value
        best = torch.where(per_image(better), adversarial, best)
        best_value = torch.where(better, value, best_value)

    for _ in range(steps):
        with torch.enable_grad():
            pixels = adversarial.detach().requires_grad_(True)
            value = objective(pixels)
        gradient = gradient_of(value, pixels, monitor)
        if keep_best:
            remember(value.detach())
        direction = steepest(gradient, norm)
        if momentum:
            direction = velocity = steepest(momentum * velocity + direction, norm)
        moved = adversarial + step_size * direction
        adversarial = into_ball(moved, images, epsilon, norm)
    if not keep_best:
        return adversarial
    if monitor is not None:
        monitor.add_pass(adversarial)
    with torch.no_grad():
        remember(objective(adversarial))
    return best


def gradient_of(value: Tensor, pixels: Tensor, monitor: Monitor | None = None) -> Tensor:
    """(B, 3, H, W) gradient of each image's value; what is not a number becomes zero: no direction."""
    (gradient,) = torch.autograd.grad(value.sum(), pixels)
    gradient = gradient.nan_to_num(0.0)
    if monitor is not None:
        monitor.add_pass(pixels)
        monitor.add_gradient(gradient)
    return gradient


def uniform_start(images: Tensor, epsilon: float, generator: torch.Generator, norm: Norm = "linf") -> Tensor:
    """Perturbations uniform in the ball of radius epsilon, (B, 3, H, W), from the caller's generator."""
    if norm == "linf":
        return torch.empty_like(images).uniform_(-epsilon, epsilon, generator=generator)
    direction = torch.empty_like(images).normal_(generator=generator)
    radius = torch.empty_like(images[:, 0, 0, 0]).uniform_(generator=generator)
    return epsilon * per_image(radius ** (1 / images[0].numel())) * steepest(direction, norm)


def uniform_start_per_image(
    images: Tensor,
    epsilon: float,
    seed: int,
    indices: Sequence[int] | np.ndarray,
    *,
    norm: Norm = "linf",
    stream: tuple[int, ...] = (),
) -> Tensor:
    """As `uniform_start`, but each image's is a function of the seed and its own index alone.

    So an evaluation does not depend on its batches or device. indices: (B,) the images' numbers in
    their set.  stream: numbers that tell several independent draws for the same image apart.
    """

    def draw(index: int) -> np.ndarray:
        # numpy, because torch's CPU generator forgets all but 32 bits of a seed
        generator = np.random.default_rng(np.random.SeedSequence((seed, index), spawn_key=stream))
        if norm == "linf":
            return generator.uniform(-epsilon, epsilon, images.shape[1:])
        direction = generator.standard_normal(images.shape[1:])
        radius = epsilon * generator.uniform() ** (1 / direction.size)
        return direction * (radius / np.linalg.norm(direction))

    starts = np.stack([draw(int(index)) for index in indices]).astype(np.float32)
    return torch.from_numpy(starts).to(images.device)


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
