"""The strong attack of final evaluations: APGD-CE, then targeted APGD, each image's worst case.

This is the part of AutoAttack (Croce & Hein 2020, arXiv 2003.01690) that follows gradients, as FARE
(arXiv 2402.12336) uses it; FAB-T and Square, its other half, are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trainables.attacks.apgd import LogitsOf, apgd
from trainables.attacks.losses import Loss, likely_targets, targeted_dlr
from trainables.attacks.monitor import Monitor
from trainables.attacks.norms import Norm
from trainables.attacks.pgd import uniform_start_per_image
from trainables.methods.base import cross_entropy
from trainables.progress import report

Attack = Literal["apgd-ce", "apgd-t"]
STREAMS: dict[Attack, int] = {"apgd-ce": 0, "apgd-t": 1}
"""Tells the attacks' random starts apart."""


@dataclass(frozen=True)
class Outcome:
    """What an attack on a set of images found, and what that took."""

    adversarial: Tensor
    """(N, 3, H, W). Misclassified where not `robust`. Otherwise, where the attacks did not succeed,
    the point of highest loss that the first of them found, never the clean image. An image that is
    misclassified without being attacked is returned as it is."""
    robust: Tensor
    """(N,) bool: classified correctly as it is and at every point that any attack visited."""
    image_passes: int
    """Forward passes of single images."""
    zero_gradients: float
    """The share, in [0, 1], of exactly zero elements in all input gradients computed."""

    @property
    def robust_accuracy(self) -> float:
        return float(self.robust.float().mean())


@dataclass(frozen=True)
class Stage:
    """One run of APGD on what is left of the set."""

    attack: Attack
    restart: int
    rank: int
    """Targeted: the class that is aimed at, 0 for the most likely other."""

    @property
    def loss(self) -> Loss:
        return cross_entropy if self.attack == "apgd-ce" else targeted_dlr

    @property
    def stream(self) -> tuple[int, ...]:
        return (STREAMS[self.attack], self.restart, self.rank)


def standard(
    logits_of: LogitsOf,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    seed: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    attacks: Sequence[Attack] = ("apgd-ce", "apgd-t"),
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    drop: bool = True,
) -> Outcome:
    """Each image's worst case over the clean image, APGD-CE and APGD-T.

    logits_of: in eval mode, see `attacked`.  images: (N, 3, H, W) in [0, 1]; they and the result may
    stay in main memory, batches are moved to `device` (by default the images').  labels: (N,).
    epsilon: in [0, 1] pixels; for `l2` the Euclidean length over one image's values.
    seed, indices: every random draw is a function of the seed, the image's index (its place among
    `images` by default) and the attack, so nothing depends on the batches.
    targets: APGD-T aims at so many of the most likely other classes, fewer if there are fewer.
    drop: leave broken images alone, within each attack and across them: batches are made up anew
    of all images left. The same images are robust without, at the price of attacking them all. ("The
    same" but for rounding, which differs between batches of different sizes.)
    Warns if more than 1 % of the gradients were exactly zero. Raises ValueError for fewer than two
    classes.
    """
    numbers = np.arange(len(images)) if indices is None else np.asarray(indices)
    device = torch.device(images.device if device is None else device)
    monitor = Monitor()
    robust, aims = clean_pass(logits_of, images, labels, targets, batch_size, device=device, monitor=monitor)
    adversarial = images.clone()
    plan = list(stages(attacks if epsilon > 0 else (), restarts, aims.shape[1]))
    for number, stage in enumerate(plan):
        left = robust.nonzero().squeeze(1) if drop else torch.arange(len(images), device=images.device)
        if len(left) == 0:
            break
        batches = left.split(batch_size)
        for index, rows in enumerate(batches):
            clean = images[rows].to(device)
            points, survived = apgd(
                logits_of,
                clean,
                labels[rows].to(device),
                start=uniform_start_per_image(
                    clean, epsilon, seed, numbers[rows.cpu().numpy()], norm=norm, stream=stage.stream
                ),
                epsilon=epsilon,
                norm=norm,
                loss=stage.loss,
                targets=aims[rows, stage.rank].to(device) if stage.attack == "apgd-t" else None,
                steps=steps,
                drop=drop,
                monitor=monitor,
            )
            survived = survived.to(images.device)
            found = robust[rows] & (~survived if number else True)  # the first stage's stand for survivors
            adversarial[rows[found]] = points.to(images.device)[found]
            robust[rows] &= survived
            report(number * len(batches) + index + 1, len(plan) * len(batches))
    monitor.warn(" + ".join(attack.upper() for attack in attacks))
    return Outcome(adversarial, robust, monitor.image_passes, monitor.zero_gradients)


def stages(attacks: Sequence[Attack], restarts: int, targets: int) -> Iterator[Stage]:
    for attack in attacks:
        for rank in range(targets if attack == "apgd-t" else 1):
            for restart in range(restarts):
                yield Stage(attack, restart, rank)


@torch.no_grad()
def clean_pass(
    logits_of: LogitsOf,
    images: Tensor,
    labels: Tensor,
    targets: int,
    batch_size: int,
    *,
    device: torch.device,
    monitor: Monitor,
) -> tuple[Tensor, Tensor]:
    """(N,) which images are classified correctly and (N, T) the classes to aim at, beside `images`."""
    correct, aims = [], []
    for batch, of_batch in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        logits, on_device = logits_of(batch.to(device)), of_batch.to(device)
        monitor.add_pass(batch)
        correct.append(logits.argmax(-1) == on_device)
        aims.append(likely_targets(logits, on_device, targets))
    return torch.cat(correct).to(images.device), torch.cat(aims).to(images.device)
