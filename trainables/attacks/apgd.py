"""Auto-PGD: projected gradient ascent with momentum that chooses its own step sizes, image by image.

Croce & Hein 2020, arXiv 2003.01690, algorithm 1 and section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.attacks.losses import Loss
from trainables.attacks.monitor import Monitor
from trainables.attacks.norms import Norm, into_ball, per_image, steepest
from trainables.attacks.pgd import gradient_of
from trainables.methods.base import cross_entropy

LogitsOf = Callable[[Tensor], Tensor]
"""Maps (B, 3, H, W) pixels in [0, 1] to (B, K) logits. In eval mode: see `attacked`."""

MOMENTUM = 0.75  # alpha of the paper
RISES = 0.75  # rho: the share of steps that must have gone up


def apgd(
    logits_of: LogitsOf,
    images: Tensor,
    labels: Tensor,
    *,
    start: Tensor,
    epsilon: float,
    norm: Norm = "linf",
    loss: Loss = cross_entropy,
    targets: Tensor | None = None,
    steps: int = 100,
    drop: bool = False,
    monitor: Monitor | None = None,
) -> tuple[Tensor, Tensor]:
    """One run of APGD: (adversarial images (B, 3, H, W), robust (B,) bool).

    An image is robust if no point that the run visited was misclassified. Returned for each image is
    its misclassified point of highest loss; if there is none, the point of highest loss, never the
    clean image.

    images: in [0, 1].  start: initial perturbation, see `uniform_start_per_image`.
    epsilon: in [0, 1] pixels; for `l2` the Euclidean length over one image's values.
    loss: called with logits and labels, and with targets where these are given.
    drop: stop attacking an image soon after it is misclassified. The same images are robust as
    without, and only `steps` decides when, so nothing depends on the other images of the batch.
    """
    run = Run(logits_of, loss, targets is not None, epsilon, norm, monitor)
    images = images.detach()
    adversarial, robust = images.clone(), torch.ones_like(labels, dtype=torch.bool)
    climb = Climb.begin(images, labels, targets, into_ball(images + start, images, epsilon, norm), epsilon)
    window_of, looks = dict(checkpoints(steps)), set(drop_times(steps)) if drop else set()
    for iteration in range(steps + 1):
        run.look(climb, gradient=iteration < steps)
        if iteration in looks or iteration == steps:
            adversarial[climb.rows], robust[climb.rows] = climb.shown, ~climb.broken
            climb = climb.select((~climb.broken).nonzero().squeeze(1))  # waits for the device
        if iteration == steps or len(climb.rows) == 0:
            break
        if iteration in window_of:
            climb.adapt(window_of[iteration])
        run.move(climb, MOMENTUM if iteration > 0 else 1.0)
    return adversarial, robust


def checkpoints(steps: int) -> Iterator[tuple[int, int]]:
    """(iteration, iterations since the last one) at which step sizes are reconsidered (section 3.1).

    They lie at 22 %, 41 %, 57 % ... of all steps: each period is shorter by 3 %, down to 6 %.
    """
    percent, period, last = 22, 22, 0
    while percent < 100:
        iteration = -(-percent * steps // 100)
        if last < iteration < steps:
            yield iteration, iteration - last
            last = iteration
        period = max(period - 3, 6)
        percent += period


def drop_times(steps: int) -> Iterator[int]:
    """Iterations after which misclassified images leave: often at first, when most are broken."""
    iteration = 0
    while iteration < steps:
        yield iteration
        iteration += 1 + iteration // 4


@dataclass
class Climb:
    """The state of every image that is still attacked, one row each."""

    rows: Tensor  # place in the caller's batch
    images: Tensor
    labels: Tensor
    targets: Tensor
    point: Tensor
    previous: Tensor
    gradient: Tensor
    value: Tensor
    best: Tensor  # of all points, that of highest loss, from which a halved step starts again
    best_value: Tensor
    best_gradient: Tensor
    shown: Tensor  # what would be returned now: misclassified before all, then of highest loss
    shown_value: Tensor
    broken: Tensor  # has any point been misclassified?
    step: Tensor
    rises: Tensor  # steps since the last checkpoint that went up
    checkpoint_value: Tensor  # best_value at the last checkpoint
    halved: Tensor  # was the step halved there?

    @classmethod
    def begin(
        cls, images: Tensor, labels: Tensor, targets: Tensor | None, point: Tensor, epsilon: float
    ) -> Climb:
        nothing = torch.full_like(images[:, 0, 0, 0], -torch.inf, dtype=torch.float32)
        no = torch.zeros_like(labels, dtype=torch.bool)
        return cls(
            rows=torch.arange(len(images), device=images.device),
            images=images,
            labels=labels,
            targets=labels if targets is None else targets,
            point=point,
            previous=point,
            gradient=torch.zeros_like(point),
            value=nothing,
            best=point,
            best_value=nothing,
            best_gradient=torch.zeros_like(point),
            shown=point,
            shown_value=nothing,
            broken=no,
            step=torch.full_like(nothing, 2 * epsilon),
            rises=torch.zeros_like(nothing),
            checkpoint_value=nothing,
            halved=no,
        )

    def select(self, rows: Tensor) -> Climb:
        return Climb(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})

    def record(self, value: Tensor, gradient: Tensor, wrong: Tensor) -> None:
        """What was found at `point`. value, wrong: (b,)."""
        self.rises = self.rises + ((value > self.value) & self.value.isfinite())  # the start is no rise
        self.value, self.gradient = value, gradient
        higher = value > self.best_value
        self.best = torch.where(per_image(higher), self.point, self.best)
        self.best_gradient = torch.where(per_image(higher), gradient, self.best_gradient)
        self.best_value = torch.where(higher, value, self.best_value)
        better = (wrong & ~self.broken) | ((wrong == self.broken) & (value > self.shown_value))
        self.shown = torch.where(per_image(better), self.point, self.shown)
        self.shown_value = torch.where(better, value, self.shown_value)
        self.broken = self.broken | wrong

    def adapt(self, window: int) -> None:
        """Halve the step and go back to the best point where progress has stopped (section 3.1).

        That is where fewer than 75 % of the steps since the last checkpoint went up, or where
        neither the step was halved there nor a better point was found since.
        """
        stuck = ~self.halved & (self.best_value == self.checkpoint_value)
        halve = (self.rises < RISES * window) | stuck
        self.step = torch.where(halve, self.step / 2, self.step)
        self.point = torch.where(per_image(halve), self.best, self.point)
        self.gradient = torch.where(per_image(halve), self.best_gradient, self.gradient)
        self.halved, self.checkpoint_value = halve, self.best_value
        self.rises = torch.zeros_like(self.rises)


@dataclass(frozen=True)
class Run:
    """What stays the same while the images climb."""

    logits_of: LogitsOf
    loss: Loss
    targeted: bool
    epsilon: float
    norm: Norm
    monitor: Monitor | None

    def look(self, climb: Climb, *, gradient: bool) -> None:
        """One forward pass at the images' points and, where asked for, one backward."""
        with torch.set_grad_enabled(gradient):
            pixels = climb.point.detach().requires_grad_(gradient)
            logits = self.logits_of(pixels)
            aims = (climb.labels, climb.targets) if self.targeted else (climb.labels,)
            value = self.loss(logits, *aims)
        if gradient:
            slope = gradient_of(value, pixels, self.monitor)
        else:
            slope = climb.gradient
            if self.monitor is not None:
                self.monitor.add_pass(pixels)
        climb.record(value.detach(), slope, logits.detach().argmax(-1) != climb.labels)

    def move(self, climb: Climb, momentum: float) -> None:
        step = per_image(climb.step) * steepest(climb.gradient, self.norm)
        ahead = into_ball(climb.point + step, climb.images, self.epsilon, self.norm)
        inertia = (1 - momentum) * (climb.point - climb.previous)
        point = climb.point + momentum * (ahead - climb.point) + inertia
        climb.previous, climb.point = climb.point, into_ball(point, climb.images, self.epsilon, self.norm)
