"""Further attacks of an evaluation, by name: our own strong ones, and any of torchattacks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch

from trainables.attacks.external import torchattack
from trainables.attacks.losses import margin
from trainables.attacks.norms import into_ball
from trainables.attacks.pgd import pgd, uniform_start_per_image
from trainables.attacks.standard import Attack, standard
from trainables.chunks import batchwise, in_memory
from trainables.pixels import batch, batches
from trainables.progress import part

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.attacks.config import FurtherAttack
    from trainables.classifiers import NetClassifier
    from trainables.config import EvaluationConfig
    from trainables.data.images import ImageSet
    from trainables.models import Classifier


IMAGES = 2048
"""Images held as floats at a time; batches are made up anew of what is left of so many."""


def still_correct(
    attack: FurtherAttack,
    classifier: Classifier | NetClassifier,
    images: ImageSet,
    config: EvaluationConfig,
) -> np.ndarray:
    """(N,) of bool: which images are still classified correctly under the attack.

    images: those that no other attack has broken yet.
    """
    if len(images) == 0:
        return np.zeros(0, dtype=bool)
    if attack.name in ("standard", *get_args(Attack)):
        return survivors_of_apgd(attack, classifier, images, config)

    def correct(rows: slice) -> np.ndarray:
        pixels, labels = batch(images, rows, classifier.device)
        points = attack_batch(attack, classifier, pixels, labels, indices=images.numbers[rows], config=config)
        with torch.no_grad():
            return (classifier(points).argmax(-1) == labels).cpu().numpy()

    return np.concatenate(list(batchwise(correct, len(images), config.batch_size)))


def survivors_of_apgd(
    attack: FurtherAttack,
    classifier: Classifier | NetClassifier,
    images: ImageSet,
    config: EvaluationConfig,
) -> np.ndarray:
    survived = []
    for rows, pixels, labels in batches(images, IMAGES, torch.device("cpu")):
        attack_all = partial(
            standard,
            classifier,
            pixels,
            labels,
            epsilon=attack.radius(config),
            norm=attack.ball(config),
            seed=config.seed,
            indices=images.numbers[rows],
            device=classifier.device,
            attacks=get_args(Attack) if attack.name == "standard" else (attack.name,),
            steps=attack.steps or 100,
            restarts=attack.restarts,
        )
        with part(rows.start, rows.stop, len(images)):
            outcome = in_memory(attack_all, config.batch_size)
        survived.append(outcome.robust.cpu().numpy())
    return np.concatenate(survived)


def attack_batch(
    attack: FurtherAttack,
    classifier: Classifier | NetClassifier,
    pixels: Tensor,
    labels: Tensor,
    *,
    indices: np.ndarray,
    config: EvaluationConfig,
) -> Tensor:
    """Attacked pixels, inside the ball whatever the attack keeps to."""
    epsilon, norm = attack.radius(config), attack.ball(config)
    if attack.name == "margin-pgd":
        steps = attack.steps or 100
        return pgd(
            lambda moved: margin(classifier(moved), labels),
            pixels,
            start=uniform_start_per_image(pixels, epsilon, config.seed, indices, norm=norm, stream=(2,)),
            epsilon=epsilon,
            step_size=2.5 * epsilon / steps,
            steps=steps,
            norm=norm,
            keep_best=True,
        )
    seed = int(np.random.SeedSequence((config.seed, int(indices[0]))).generate_state(1)[0])
    points = torchattack(attack.external, classifier, pixels, labels, seed=seed, **attack.arguments(config))
    points = torch.where(points.isfinite(), points, pixels)  # what is not a number is no attack
    return into_ball(points, pixels, epsilon, norm)
