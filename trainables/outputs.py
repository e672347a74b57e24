"""What a model says of the images of one set, clean and attacked: the expensive part of an evaluation.

It is computed so many images at a time, and each of these parts is kept where there is a place for it, so
that an evaluation which is interrupted, whenever that is, goes on with the part that it was at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainables.attacks.confidence import confidence_attack
from trainables.attacks.further import still_correct
from trainables.attacks.losses import margin
from trainables.attacks.monitor import Monitor
from trainables.attacks.pgd import pgd, uniform_start_per_image
from trainables.chunks import batchwise, slices
from trainables.errors import Diverged
from trainables.methods.base import cross_entropy
from trainables.once import NOWHERE, Kind, Store
from trainables.pixels import batch
from trainables.progress import part

if TYPE_CHECKING:
    from trainables.classifiers import NetClassifier
    from trainables.config import EvaluationConfig
    from trainables.data.images import ImageSet
    from trainables.models import Classifier

LOSSES = {"cross_entropy": cross_entropy, "margin": margin}
LEADS = {"float32": 1e-3, "bfloat16": 0.5}
"""By how much a logit has to lead, so that rounding can't take it away."""
PART = 2048
"""Images of a part, where parts are kept."""
COSINES = "cosines-"


@dataclass(frozen=True)
class Outputs:
    """cosines: (N, K) of each version of the images, on the CPU.  zero_gradients: (N,) the share of exactly
    zero ones in the batch of each image.  broken_by: (N,) what broke each first: `clean`, the fixed-step
    attack, a further attack, or nothing, "". Both only of images that were attacked."""

    cosines: dict[str, Tensor]
    zero_gradients: np.ndarray | None = None
    broken_by: np.ndarray | None = None

    def save(self, folder: Path) -> None:
        arrays = {f"{COSINES}{version}": values.numpy() for version, values in self.cosines.items()}
        if self.broken_by is not None and self.zero_gradients is not None:
            arrays |= {"zero_gradients": self.zero_gradients, "broken_by": self.broken_by.astype(str)}
        np.savez(folder / "outputs.npz", **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> Outputs:
        with np.load(folder / "outputs.npz", allow_pickle=False) as file:
            arrays = dict(file)
        versions = [name for name in arrays if name.startswith(COSINES)]
        cosines = {name.removeprefix(COSINES): torch.from_numpy(arrays[name]) for name in versions}
        return cls(cosines, arrays.get("zero_gradients"), arrays.get("broken_by"))

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        first = parts[0]
        if len(parts) == 1:
            return first
        cosines = {version: torch.cat([each.cosines[version] for each in parts]) for version in first.cosines}
        if first.broken_by is None:
            return cls(cosines)
        arrays = [[getattr(each, name) for each in parts] for name in ("zero_gradients", "broken_by")]
        return cls(cosines, *map(np.concatenate, arrays))


OUTPUTS = Kind("outputs", write=Outputs.save, read=Outputs.load)


def outputs_of(
    classifier: Classifier | NetClassifier, images: ImageSet, config: EvaluationConfig, store: Store = NOWHERE
) -> Outputs:
    """What the classifier says of the images, attacked if that is their role. Raises Diverged if that is not
    finite, and MemoryShortage if a single image is too much."""
    size = len(images) if store.folder is None else PART
    parts = []
    for rows in slices(len(images), size):
        own = images.take(np.arange(rows.start, rows.stop))
        with part(rows.start, rows.stop, len(images)):
            found = Measuring(classifier, own, config)
            parts.append(store.get(OUTPUTS, found.key(), found.outputs) if store.folder else found.outputs())
    return Outputs.joined(parts)


def costs(config: EvaluationConfig) -> list[int]:
    """How long what an evaluation does takes, in steps of an attack: the versions of the images, then each
    further attack, as if no image was broken before."""
    stress = config.confidence_attack
    versions = 1 + config.attack.steps + (2 * stress.steps if stress else 0)
    return [versions, *(attack.cost for attack in config.further_attacks)]


class Measuring:
    """One classifier on some images of a set."""

    def __init__(
        self, classifier: Classifier | NetClassifier, images: ImageSet, config: EvaluationConfig
    ) -> None:
        self.classifier, self.images, self.config = classifier, images, config
        self.device = classifier.device
        self.costs = costs(config) if images.role.attacked else [1]

    def key(self) -> dict[str, Any]:
        """All that the outputs depend on."""
        images, text = self.images, self.classifier.text.cpu().numpy()
        measured = {"batch_size", "further_sets", "ood", "suites", "suite_epochs", "images"}
        return {
            "model": self.classifier.model.fingerprint(),
            "arithmetic": self.classifier.model.arithmetic,
            "classes": hashlib.sha256(text.tobytes()).hexdigest(),
            "images": [images.fingerprint(), hashlib.sha256(images.numbers.tobytes()).hexdigest()],
            "attacked": images.role.attacked,
            "evaluation": self.config.model_dump(mode="json", exclude=measured),
        }

    def outputs(self) -> Outputs:
        with part(0, self.costs[0], sum(self.costs)):
            parts = list(batchwise(self._measure_rows, len(self.images), self.config.batch_size))
        cosines = {version: torch.cat([cosines[version] for cosines, _ in parts]) for version in parts[0][0]}
        if not all(torch.isfinite(values).all() for values in cosines.values()):
            raise Diverged(f"the model's output on {self.images.name} is not finite")
        if not self.images.role.attacked:
            return Outputs(cosines)
        return Outputs(cosines, np.concatenate([share for _, share in parts]), self._worst_case(cosines))

    def _measure_rows(self, rows: slice) -> tuple[dict[str, Tensor], np.ndarray]:
        """(B, K) cosines of all versions of some images, and (B,) the share of zero gradients in their
        batch."""
        clean, labels = batch(self.images, rows, self.device)
        monitor = Monitor()
        cosines = {}
        for version, pixels in self._versions(self.images.numbers[rows], clean, labels, monitor):
            with torch.no_grad():
                cosines[version] = self.classifier.cosines(pixels).cpu()
        return cosines, np.full(len(labels), monitor.zero_gradients)

    def _versions(
        self, numbers: np.ndarray, clean: Tensor, labels: Tensor, monitor: Monitor
    ) -> Iterator[tuple[str, Tensor]]:
        yield "clean", clean
        if not self.images.role.attacked:
            return
        yield "robust", self._attack(numbers, clean, labels, monitor)
        stress = self.config.confidence_attack
        if stress is None:
            return
        push = partial(
            confidence_attack,
            self.classifier,
            clean,
            epsilon=stress.epsilon,
            norm=stress.norm,
            steps=stress.steps,
            lead=LEADS[self.config.precision],
        )
        yield "confidence_up", push(direction="up")
        yield "confidence_down", push(direction="down")

    def _attack(self, numbers: np.ndarray, clean: Tensor, labels: Tensor, monitor: Monitor) -> Tensor:
        """Fixed-step PGD that perturbs every image and returns its point of highest loss."""
        attack = self.config.attack
        loss = LOSSES[attack.loss]
        return pgd(
            lambda pixels: loss(self.classifier(pixels), labels),
            clean,
            start=uniform_start_per_image(clean, attack.epsilon, self.config.seed, numbers, norm=attack.norm),
            epsilon=attack.epsilon,
            step_size=attack.step,
            steps=attack.steps,
            norm=attack.norm,
            momentum=attack.momentum,
            keep_best=True,
            monitor=monitor,
        )

    def _worst_case(self, cosines: dict[str, Tensor]) -> np.ndarray:
        """What broke each image first: `clean`, the fixed-step attack, a further attack, or nothing."""
        labels = torch.from_numpy(self.images.labels)
        broken = np.full(len(labels), "", dtype=object)
        for version, name in (("clean", "clean"), ("robust", str(self.config.attack))):
            wrong = (cosines[version].argmax(-1) != labels).numpy()
            broken[wrong & (broken == "")] = name
        for index, further in enumerate(self.config.further_attacks):
            left = np.flatnonzero(broken == "")
            with part(sum(self.costs[: index + 1]), sum(self.costs[: index + 2]), sum(self.costs)):
                correct = still_correct(further, self.classifier, self.images.take(left), self.config)
            broken[left[~correct]] = further.name
        return broken
