"""Is a robust accuracy to be believed? Signs that gradients are masked rather than the model robust.

The checks are those of Athalye et al. 2018, arXiv 1802.00420, section 3.1, and Carlini et al. 2019,
arXiv 1902.06705, section 3.2: they can convict an evaluation, not acquit it.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from trainables.attacks.external import torchattack
from trainables.attacks.monitor import Monitor
from trainables.attacks.norms import Norm
from trainables.attacks.pgd import attacked, pgd
from trainables.attacks.standard import Attack, Outcome, standard
from trainables.methods.base import cross_entropy
from trainables.metrics.names import ZERO_GRADIENTS
from trainables.progress import named, part

UNBOUNDED_STEPS = 100
"""Where anything is allowed the way may be long, and honest models leave the batch early."""
PARTS = 7
"""Of the work, as progress is told: an attack that others are held against, and six checks."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    passed: bool | None
    """None: not checked, the detail says why."""
    detail: str
    """One line with the numbers."""

    def __str__(self) -> str:
        mark = {True: "passed", False: "FAILED", None: "not checked"}[self.passed]
        return f"{self.name}: {mark}: {self.detail}"


@dataclass(frozen=True)
class Suspect:
    """The model under suspicion and what it is attacked with."""

    logits_of: nn.Module
    images: Tensor
    labels: Tensor
    epsilon: float
    norm: Norm
    steps: int
    seed: int

    @property
    def allowance(self) -> float:
        """One image in a hundred, and at least one image, may fall on the wrong side by chance."""
        return max(0.01, 1 / len(self.images)) + 1e-6

    def attack(self, epsilon: float, *attacks: Attack) -> Outcome:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # zero gradients are a finding of their own
            return standard(
                self.logits_of,
                self.images,
                self.labels,
                epsilon=epsilon,
                norm=self.norm,
                seed=self.seed,
                batch_size=len(self.images),
                attacks=attacks,
                steps=self.steps,
            )


def check(
    logits_of: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    steps: int = 20,
    queries: int = 200,
    seed: int = 0,
) -> list[Finding]:
    """All findings about a model, from one batch of images: some fifty or a hundred are enough.

    logits_of: maps (B, 3, H, W) pixels in [0, 1] to (B, K) logits; its modes and flags are as before.
    images: (B, 3, H, W) in [0, 1], on the model's device.  labels: (B,).
    epsilon: in [0, 1] pixels; for `l2` the Euclidean length over one image's values.
    steps: of each gradient attack.  queries: of Square.
    """
    suspect = Suspect(logits_of, images, labels, epsilon, norm, steps, seed)
    with attacked(logits_of), named("checking the robustness"):
        with part(0, 1, PARTS):
            white_box = suspect.attack(epsilon, "apgd-ce", "apgd-t")
        monitor = Monitor()
        checks: list[Callable[[], Finding]] = [
            lambda: repeatable(suspect),
            lambda: more_iterations(suspect, monitor),
            lambda: larger_epsilon(suspect),
            lambda: unbounded(suspect),
            lambda: black_box(suspect, white_box, queries),
            lambda: gradients(max(white_box.zero_gradients, monitor.zero_gradients)),
        ]
        findings = []
        for index, each in enumerate(checks, start=1):
            with part(index, index + 1, PARTS):
                findings.append(each())
        return findings


@torch.no_grad()
def repeatable(suspect: Suspect) -> Finding:
    """A model that answers at random needs attacks that average over its answers."""
    first, second = (suspect.logits_of(suspect.images).float() for _ in range(2))
    gap = float((first - second).abs().max())
    detail = f"logits of the same images differ by up to {gap:.2g}"
    return Finding("repeatable", gap <= 1e-3 * float(first.abs().max()), detail)


def more_iterations(suspect: Suspect, monitor: Monitor) -> Finding:
    """The same trajectories, further: the loss may not fall, and has to rise."""

    def loss(pixels: Tensor) -> Tensor:
        return cross_entropy(suspect.logits_of(pixels), suspect.labels)

    counts = (1, 5, max(suspect.steps, 10))
    reached = []
    for count in counts:
        points = pgd(
            loss,
            suspect.images,
            start=torch.zeros_like(suspect.images),
            epsilon=suspect.epsilon,
            step_size=suspect.epsilon / 10,
            steps=count,
            norm=suspect.norm,
            keep_best=True,
            monitor=monitor,
        )
        with torch.no_grad():
            reached.append(float(loss(points).mean()))
    slack = 1e-5 * (1 + reached[0])
    rises = all(more >= fewer - slack for fewer, more in pairwise(reached)) and reached[-1] > reached[0]
    told = ", ".join(f"{value:.4g} after {count}" for value, count in zip(reached, counts, strict=True))
    return Finding("more iterations", rises, f"mean cross-entropy under PGD: {told} (has to rise)")


def larger_epsilon(suspect: Suspect) -> Finding:
    """A larger ball holds the smaller one's points: robust accuracy may not rise."""
    radii = [suspect.epsilon * factor for factor in (0.5, 1, 2)]
    reached = [suspect.attack(radius, "apgd-ce").robust_accuracy for radius in radii]
    falls = all(larger <= smaller + suspect.allowance for smaller, larger in pairwise(reached))
    told = ", ".join(f"{value:.1%} at {shown(radius)}" for value, radius in zip(reached, radii, strict=True))
    return Finding("larger epsilon", falls, f"robust accuracy under APGD-CE: {told} (may not rise)")


def unbounded(suspect: Suspect) -> Finding:
    """A ball that holds every image holds images of other classes."""
    radius = 1.0 if suspect.norm == "linf" else math.sqrt(suspect.images[0].numel())
    patient = dataclasses.replace(suspect, steps=max(suspect.steps, UNBOUNDED_STEPS))
    reached = patient.attack(radius, "apgd-ce").robust_accuracy
    return Finding(
        "unbounded", reached == 0, f"robust accuracy {reached:.1%} where any image is allowed (0 %)"
    )


def black_box(suspect: Suspect, white_box: Outcome, queries: int) -> Finding:
    """Square (Andriushchenko et al. 2020, arXiv 1912.00049), which sees no gradient, may not win."""
    name = "black box not stronger"
    try:
        points = torchattack(
            "Square",
            suspect.logits_of,
            suspect.images,
            suspect.labels,
            seed=suspect.seed,
            norm="Linf" if suspect.norm == "linf" else "L2",
            eps=suspect.epsilon,
            n_queries=queries,
        )
    except ImportError as error:
        return Finding(name, None, str(error))
    with torch.no_grad():
        survived = suspect.logits_of(points).argmax(-1) == suspect.labels
        survived &= suspect.logits_of(suspect.images).argmax(-1) == suspect.labels
    blind, seeing = float(survived.float().mean()), white_box.robust_accuracy
    only = int((white_box.robust & ~survived).sum())
    detail = (
        f"robust accuracy {blind:.1%} under Square with {queries} queries, {seeing:.1%} under "
        f"APGD-CE + APGD-T; {only} of {len(survived)} images broken by Square alone"
    )
    return Finding(name, only / len(survived) <= suspect.allowance, detail)


def gradients(zeros: float) -> Finding:
    """Where the gradient is exactly zero, a pixel is not attacked."""
    detail = f"{zeros:.2%} of the input gradients are exactly zero (at most {ZERO_GRADIENTS:.0%})"
    return Finding("gradients", zeros <= ZERO_GRADIENTS, detail)


def shown(epsilon: float) -> str:
    return f"{epsilon * 255:.4g}/255"
