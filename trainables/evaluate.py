"""Evaluation on clean and attacked versions of the same images, as per-image records.

Every metric is computed from the records, and the records are stored: a number can be recomputed,
given an interval or broken down without a GPU.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trainables.attacks.confidence import confidence_attack
from trainables.attacks.further import still_correct
from trainables.attacks.losses import margin
from trainables.attacks.monitor import Monitor
from trainables.attacks.pgd import attacked, pgd, uniform_start_per_image
from trainables.chunks import batchwise
from trainables.data.cache import whole
from trainables.errors import Diverged
from trainables.methods.base import cross_entropy
from trainables.metrics import uncertainty
from trainables.metrics.classwise import class_bins, merge_class_bins
from trainables.metrics.summary import Summary, summarize
from trainables.metrics.temperature import fit_temperature, scaled
from trainables.models import Classifier, PixelClip
from trainables.pixels import batch
from trainables.progress import MEASURING, named, part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from trainables.config import EvaluationConfig
    from trainables.data.images import ImageSet

LOSSES = {"cross_entropy": cross_entropy, "margin": margin}
LEADS = {"float32": 1e-3, "bfloat16": 0.5}
"""By how much a logit has to lead, so that rounding can't take it away."""
ROWS = 4096
"""Images whose probabilities are worked on at a time."""


@dataclass(frozen=True)
class Evaluation:
    """Records and class bins of one model on some sets, see `metrics.summary`, and what they say."""

    records: pd.DataFrame
    class_bins: pd.DataFrame

    @cached_property
    def summary(self) -> Summary:
        return summarize(self.records, self.class_bins)

    def report(self) -> dict[str, Any]:
        """What is written of it as JSON: metrics, their 95 % intervals, and what broke the images.

        broken_by: for each set the number of images by what broke them first, "" for those that
        withstood everything.
        """
        by_set = self.records.groupby("set", sort=False)["broken_by"]
        return {
            "metrics": self.summary.metrics,
            "intervals": self.summary.intervals,
            "broken_by": {name: counts.value_counts().to_dict() for name, counts in by_set},
        }

    @classmethod
    def load(cls, records: Path) -> Evaluation:
        """Reads what `save` wrote."""
        return cls(pd.read_parquet(records), pd.read_parquet(bins_file(records)))

    def save(self, records: Path) -> None:
        """Writes two Parquet files, `records` last, each complete or not there."""
        for frame, file in ((self.class_bins, bins_file(records)), (self.records, records)):
            with whole(file) as written:
                frame.to_parquet(written, index=False)


def bins_file(records: Path) -> Path:
    return records.with_name(f"{records.stem}-class-bins.parquet")


def evaluate(
    model: PixelClip,
    sets: Sequence[ImageSet],
    config: EvaluationConfig,
    *,
    temperature: float | None = None,
) -> Evaluation:
    """Measures all images of all sets, the in-distribution one first.

    temperature: of the scaled probabilities; None fits it on the clean images of the first set, which
    is right where those are validation images. See `calibrate`.
    Where memory runs out, batches are halved, on which no result depends.
    Raises Diverged if the model's output is not finite, MemoryShortage if a single image is too much.
    """
    with attacked(model), precision(model, config), named(MEASURING):
        results = []
        for index, images in enumerate(sets):
            with part(index, index + 1, len(sets)):
                results.append(SetEvaluation(model, images, config, temperature))
            temperature = results[0].temperature
        return Evaluation(
            pd.concat([result.records() for result in results], ignore_index=True),
            pd.concat([result.class_bins() for result in results], ignore_index=True),
        )


@torch.no_grad()
def calibrate(model: PixelClip, images: ImageSet, config: EvaluationConfig) -> float:
    """The temperature of lowest NLL on clean images: validation images of the training distribution."""
    images = images.sample(config.images)
    with attacked(model), precision(model, config), named("temperature"):
        classifier = classifier_of(model, images)
        logits = batchwise(
            lambda rows: classifier(batch(images, rows, model.device)[0]).cpu(),
            len(images),
            config.batch_size,
        )
        return fit_temperature(torch.cat(list(logits)).numpy(), images.labels)


@contextmanager
def precision(model: PixelClip, config: EvaluationConfig) -> Iterator[None]:
    """Inside, the model computes as the evaluation says, on any device."""
    before, model.mixed_precision = model.mixed_precision, config.precision == "bfloat16"
    try:
        yield
    finally:
        model.mixed_precision = before


def costs(config: EvaluationConfig) -> list[int]:
    """How long what an evaluation does takes, in steps of an attack: the versions of the images, then each
    further attack, as if no image was broken before."""
    stress = config.confidence_attack
    versions = 1 + config.attack.steps + (2 * stress.steps if stress else 0)
    return [versions, *(attack.cost for attack in config.further_attacks)]


def classifier_of(model: PixelClip, images: ImageSet) -> Classifier:
    """The zero-shot classifier of the set's classes and prompts."""
    return Classifier(model, model.encode_classes(images.classes, images.templates))


class SetEvaluation:
    """One model on one set: the cosines of each version, (N, K) on the CPU, and what attacks found."""

    def __init__(
        self,
        model: PixelClip,
        images: ImageSet,
        config: EvaluationConfig,
        temperature: float | None,
    ) -> None:
        self.config = config
        self.images = images.sample(config.images)
        self.classifier = classifier_of(model, images)
        self.scale = float(model.scale)
        self.device = model.device
        self.costs = costs(config)
        with part(0, self.costs[0], sum(self.costs)):
            self.cosines = self._measure()
        self.temperature = temperature or fit_temperature(self._logits("clean").numpy(), self.images.labels)
        self.broken_by = self._worst_case()

    def _logits(self, version: str) -> Tensor:
        return self.scale * self.cosines[version]

    def _measure(self) -> dict[str, Tensor]:
        """Cosines of all versions, each batch being brought to the device once."""
        parts = list(batchwise(self._measure_rows, len(self.images), self.config.batch_size))
        whole = {version: torch.cat([cosines[version] for cosines, _ in parts]) for version in parts[0][0]}
        self.zero_gradients = np.concatenate([share for _, share in parts])
        if not all(torch.isfinite(values).all() for values in whole.values()):
            raise Diverged(f"the model's output on {self.images.name} is not finite")
        return whole

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

    def _worst_case(self) -> np.ndarray:
        """What broke each image first: `clean`, the fixed-step attack, a further attack, or nothing."""
        labels = torch.from_numpy(self.images.labels)
        broken = np.full(len(labels), "", dtype=object)
        for version, name in (("clean", "clean"), ("robust", str(self.config.attack))):
            wrong = (self.cosines[version].argmax(-1) != labels).numpy()
            broken[wrong & (broken == "")] = name
        for index, further in enumerate(self.config.further_attacks):
            left = np.flatnonzero(broken == "")
            with part(sum(self.costs[: index + 1]), sum(self.costs[: index + 2]), sum(self.costs)):
                correct = still_correct(further, self.classifier, self.images.take(left), self.config)
            broken[left[~correct]] = further.name
        return broken

    def records(self) -> pd.DataFrame:
        columns = {
            "set": self.images.name,
            "split": self.images.split,
            "index": self.images.numbers,
            "label": self.images.labels,
            "broken_by": self.broken_by,
            "temperature": self.temperature,
            "zero_gradients": self.zero_gradients,
        }
        for version in self.cosines:
            parts = [self._columns(version, rows) for rows in self._chunks()]
            columns |= {
                f"{version}_{name}": np.concatenate([part[name] for part in parts]) for name in parts[0]
            }
        return pd.DataFrame(columns)

    def _chunks(self) -> Iterator[slice]:
        return (slice(first, first + ROWS) for first in range(0, len(self.images), ROWS))

    def _columns(self, version: str, rows: slice) -> dict[str, np.ndarray]:
        cosine = self.cosines[version][rows]
        labels = torch.from_numpy(self.images.labels[rows])
        logits = (self.scale * cosine).double()
        log_p, scaled_log_p = logits.log_softmax(-1), (logits / self.temperature).log_softmax(-1)
        confidence, prediction = log_p.exp().max(-1)
        target = torch.zeros_like(log_p).scatter(-1, labels[:, None], 1.0)
        of_label = logits.gather(-1, labels[:, None])
        columns = {
            "prediction": prediction,
            "correct": prediction == labels,
            "rank": (logits > of_label).sum(-1),
            "confidence": confidence,
            "margin": -margin(logits, labels),
            "nll": cross_entropy_of(log_p, labels),
            "brier": (log_p.exp() - target).square().sum(-1),
            "entropy": uncertainty.entropy(logits),
            "aleatoric": uncertainty.aleatoric(cosine),
            "epistemic": uncertainty.epistemic(cosine),
            "scaled_confidence": scaled_log_p.amax(-1).exp(),
            "scaled_nll": cross_entropy_of(scaled_log_p, labels),
        }
        return {name: column.numpy() for name, column in columns.items()}

    def class_bins(self) -> pd.DataFrame:
        tables = []
        for version in self.cosines:
            logits, labels = self._logits(version).numpy(), self.images.labels
            table = merge_class_bins(
                [class_bins(scaled(logits[rows], 1.0), labels[rows]) for rows in self._chunks()]
            )
            table.insert(0, "version", version)
            table.insert(0, "set", self.images.name)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)


def cross_entropy_of(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    return -log_probabilities.gather(-1, labels[:, None]).squeeze(-1)
