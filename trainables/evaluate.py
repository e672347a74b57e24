"""Evaluation on clean and attacked versions of the same images, as per-image records.

Every metric is computed from the records, and the records are stored: a number can be recomputed,
given an interval or broken down without a GPU.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trainables.attacks.losses import margin
from trainables.attacks.pgd import attacked
from trainables.chunks import batchwise
from trainables.data.cache import whole
from trainables.errors import DataError
from trainables.metrics import uncertainty
from trainables.metrics.classwise import class_bins, merge_class_bins
from trainables.metrics.records import by_set, together
from trainables.metrics.summary import Summary, summarize
from trainables.metrics.temperature import fit_temperature, scaled
from trainables.once import NOWHERE, Store
from trainables.outputs import outputs_of
from trainables.pixels import batch
from trainables.progress import MEASURING, named, part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from trainables.classifiers import Measurable, NetClassifier
    from trainables.config import EvaluationConfig
    from trainables.data.images import ImageSet
    from trainables.models import Classifier

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
        attacked = {name: own for name, own in by_set(self.records).items() if "broken_by" in own}
        return {
            "metrics": self.summary.metrics,
            "intervals": self.summary.intervals,
            "broken_by": {name: own["broken_by"].value_counts().to_dict() for name, own in attacked.items()},
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
    model: Measurable,
    sets: Sequence[ImageSet],
    config: EvaluationConfig,
    *,
    temperature: float | None = None,
    store: Store = NOWHERE,
) -> Evaluation:
    """Measures all images of all sets, each for what its role says, the in-distribution one first.

    temperature: of the scaled probabilities; None fits it on the clean images of the first set, which
    is right where those are validation images. See `calibrate`.
    store: where what the model says of some thousand images at a time is kept, see `trainables.outputs`.
    Where memory runs out, batches are halved, on which no result depends.
    Raises DataError if the sets are not all of one split, Diverged if the model's output is not finite,
    MemoryShortage if a single image is too much.
    """
    check_splits(sets)
    with attacked(model), precision(model, config), named(MEASURING):
        inside = classifier_of(model, sets[0])
        results = []
        for index, images in enumerate(sets):
            with part(index, index + 1, len(sets)):
                own = inside if index == 0 or images.role.outside else classifier_of(model, images)
                results.append(SetEvaluation(own, images, config, temperature, store))
            temperature = results[0].temperature
        return Evaluation(
            together([result.records() for result in results]),
            pd.concat([result.class_bins() for result in results], ignore_index=True),
        )


def check_splits(sets: Sequence[ImageSet]) -> None:
    """Raises DataError unless all are of one split: nothing is to be chosen by numbers of test images."""
    first = sets[0]
    for images in sets[1:]:
        if images.split != first.split:
            raise DataError(
                f"{first.name!r} has {first.split} images and {images.name!r} {images.split} images; measure "
                "all sets of an evaluation on one split"
            )


@torch.no_grad()
def calibrate(model: Measurable, images: ImageSet, config: EvaluationConfig) -> float:
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
def precision(model: Measurable, config: EvaluationConfig) -> Iterator[None]:
    """Inside, the model computes as the evaluation says, on any device."""
    before, model.mixed_precision = model.mixed_precision, config.precision == "bfloat16"
    try:
        yield
    finally:
        model.mixed_precision = before


def classifier_of(model: Measurable, images: ImageSet) -> Classifier | NetClassifier:
    """The zero-shot classifier of the set's classes and prompts."""
    return model.classifier(images.classes, images.templates)


class SetEvaluation:
    """One model on one set: what it says of the images, and their records.

    classifier: of the set's own classes, or for images of other classes the in-distribution set's.
    """

    def __init__(
        self,
        classifier: Classifier | NetClassifier,
        images: ImageSet,
        config: EvaluationConfig,
        temperature: float | None,
        store: Store = NOWHERE,
    ) -> None:
        self.images = images.sample(config.images)
        self.scale = float(classifier.model.scale)
        self.outputs = outputs_of(classifier, self.images, config, store)
        self.cosines = self.outputs.cosines
        self.own_temperature = (
            math.nan
            if images.role.outside
            else fit_temperature(self._logits("clean").numpy(), self.images.labels)
        )
        self.temperature = temperature or self.own_temperature

    def _logits(self, version: str) -> Tensor:
        return self.scale * self.cosines[version]

    def records(self) -> pd.DataFrame:
        images, outputs = self.images, self.outputs
        columns: dict[str, Any] = {
            "set": images.name,
            "groups": " ".join(images.role.groups),
            "split": images.split,
            "index": images.numbers,
            "label": images.labels,
        }
        if outputs.broken_by is not None:
            columns |= {"broken_by": outputs.broken_by, "zero_gradients": outputs.zero_gradients}
        for version in self.cosines:
            columns |= self._in_chunks(partial(self._scores, version), f"{version}_")
            if not images.role.outside:
                columns |= self._in_chunks(partial(self._verdicts, version), f"{version}_")
        if not images.role.outside:
            columns |= {"temperature": self.temperature, "own_temperature": self.own_temperature}
            columns |= self._in_chunks(self._at_own_temperature, "own_")
        return pd.DataFrame(columns)

    def _in_chunks(self, columns: Callable[[slice], dict[str, Tensor]], start: str) -> dict[str, np.ndarray]:
        parts = [columns(rows) for rows in self._chunks()]
        whole = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
        return {f"{start}{name}": column for name, column in whole.items()}

    def _chunks(self) -> Iterator[slice]:
        return (slice(first, first + ROWS) for first in range(0, len(self.images), ROWS))

    def _log_p(self, version: str, rows: slice, temperature: float = 1.0) -> Tensor:
        logits = (self.scale * self.cosines[version][rows]).double()
        return (logits / temperature).log_softmax(-1)

    def _scores(self, version: str, rows: slice) -> dict[str, Tensor]:
        """Columns that need no label."""
        cosine = self.cosines[version][rows]
        log_p = self._log_p(version, rows)
        return {
            "prediction": log_p.argmax(-1),
            "confidence": log_p.amax(-1).exp(),
            "entropy": uncertainty.entropy(self.scale * cosine),
            "aleatoric": uncertainty.aleatoric(cosine),
            "epistemic": uncertainty.epistemic(cosine),
            "mcm": uncertainty.concept_matching(cosine),
            "scaled_confidence": self._log_p(version, rows, self.temperature).amax(-1).exp(),
        }

    def _verdicts(self, version: str, rows: slice) -> dict[str, Tensor]:
        """Columns that need one."""
        labels = torch.from_numpy(self.images.labels[rows])
        logits = (self.scale * self.cosines[version][rows]).double()
        log_p = logits.log_softmax(-1)
        target = torch.zeros_like(log_p).scatter(-1, labels[:, None], 1.0)
        of_label = logits.gather(-1, labels[:, None])
        return {
            "correct": log_p.argmax(-1) == labels,
            "rank": (logits > of_label).sum(-1),
            "margin": -margin(logits, labels),
            "nll": cross_entropy_of(log_p, labels),
            "brier": (log_p.exp() - target).square().sum(-1),
            "scaled_nll": cross_entropy_of(self._log_p(version, rows, self.temperature), labels),
        }

    def _at_own_temperature(self, rows: slice) -> dict[str, Tensor]:
        labels = torch.from_numpy(self.images.labels[rows])
        return {"scaled_nll": cross_entropy_of(self._log_p("clean", rows, self.own_temperature), labels)}

    def class_bins(self) -> pd.DataFrame:
        tables = [pd.DataFrame()]
        for version in () if self.images.role.outside else self.cosines:
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
