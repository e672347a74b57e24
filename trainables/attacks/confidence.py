"""An attack on calibration alone: the predicted class stays, its confidence is pushed up or down.

The idea is that of ACE (Galil & El-Yaniv 2021, arXiv 2110.13741), which takes one step along the
gradient of the confidence and shrinks it until the prediction holds. Here many projected steps are
taken, each image backs off by itself, in either norm; and the direction is asked for, where ACE
lowers confidence on correct predictions and raises it on wrong ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.attacks.apgd import LogitsOf
from trainables.attacks.losses import margin, of_class
from trainables.attacks.monitor import Monitor
from trainables.attacks.norms import Norm, into_ball, per_image, steepest
from trainables.attacks.pgd import gradient_of

Direction = Literal["up", "down"]


def confidence_attack(
    logits_of: LogitsOf,
    images: Tensor,
    *,
    direction: Direction,
    epsilon: float,
    norm: Norm = "linf",
    steps: int = 20,
    lead: float = 1e-3,
    monitor: Monitor | None = None,
) -> Tensor:
    """Images within `epsilon` of `images` with the same predicted classes, more or less confident.

    Ascends (or descends) the log-probability of the class predicted for the clean image. A step that
    loses the class, or does not help, is taken back and that image's step is halved; it starts from
    epsilon / 2. Nothing is random. Should a returned image, looked up once more at the end, not have
    the clean image's predicted class, then the clean image is returned in its place.

    logits_of: in eval mode, see `attacked`.  images: (B, 3, H, W) in [0, 1].
    epsilon: in [0, 1] pixels; for `l2` the Euclidean length over one image's values.
    lead: the class counts as kept while its logit leads by this much, more than float32 rounding can
    take away; give more where logits come from a lower precision. Images that lead by less are
    returned as they are.  Costs `steps` + 3 forward and `steps` + 1 backward passes.
    """
    if epsilon == 0:
        return images
    images = images.detach()
    with torch.no_grad():
        predicted = logits_of(images).argmax(-1)
    sign = 1 if direction == "up" else -1
    point = candidate = images
    value = torch.full_like(images[:, 0, 0, 0], -torch.inf, dtype=torch.float32)
    gradient = torch.zeros_like(images)
    step = torch.full_like(value, epsilon / 2)
    for _ in range(steps + 1):
        with torch.enable_grad():
            pixels = candidate.detach().requires_grad_(True)
            logits = logits_of(pixels)
            reached = sign * log_probability(logits, predicted)
        slope = gradient_of(reached, pixels, monitor)
        keeps_class = margin(logits.detach(), predicted) <= -lead
        accepted = keeps_class & (reached.detach() > value)
        point = torch.where(per_image(accepted), candidate, point)
        gradient = torch.where(per_image(accepted), slope, gradient)
        value = torch.where(accepted, reached.detach(), value)
        step = torch.where(accepted, step, step / 2)
        candidate = into_ball(point + per_image(step) * steepest(gradient, norm), images, epsilon, norm)
    with torch.no_grad():
        kept = logits_of(point).argmax(-1) == predicted
    if monitor is not None:
        monitor.add_pass(images)
        monitor.add_pass(point)
    return torch.where(per_image(kept), point, images)


def log_probability(logits: Tensor, classes: Tensor) -> Tensor:
    """(B,) log of the softmax probability of `classes`, in float32 whatever the logits' precision."""
    return of_class(logits.float().log_softmax(-1), classes)
