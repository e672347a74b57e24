"""Evaluation on clean and attacked versions of the same images, as per-image records.

Every metric is computed from the records, and the records are stored: a number can be recomputed,
given an interval or broken down without a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trainables.attacks.pgd import attacked, pgd, uniform_start_per_image
from trainables.methods.base import cross_entropy
from trainables.metrics import uncertainty
from trainables.metrics.calibration import expected_calibration_error
from trainables.metrics.names import DESCRIPTIONS, VERSIONS
from trainables.models import PixelClip, class_prompts, cosines
from trainables.pixels import to_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainables.config import EvaluationConfig
    from trainables.data.images import ImageSet

MEANS = tuple(name for name in DESCRIPTIONS if name not in ("accuracy", "ece"))


def evaluate(
    model: PixelClip, sets: Sequence[ImageSet], prompt: str, config: EvaluationConfig
) -> pd.DataFrame:
    """Records of all images of all sets: one row per image, see `set_records`."""
    with attacked(model):
        return pd.concat([set_records(model, images, prompt, config) for images in sets], ignore_index=True)


def set_records(model: PixelClip, images: ImageSet, prompt: str, config: EvaluationConfig) -> pd.DataFrame:
    """One row per image: `set`, `split`, `index`, `label`, and for both versions, `clean_` and
    `robust_`: `prediction`, `correct`, `confidence`, `margin` (logit of the label minus the largest
    other), `nll` (nats), `brier`, `entropy`, `aleatoric`, `epistemic`."""
    images = images.sample(config.images)
    text = model.encode_classes(class_prompts(prompt, images.classes))
    batches = []
    for first in range(0, len(images), config.batch_size):
        clean = to_pixels(images.images[first : first + config.batch_size], model.device)
        labels = torch.from_numpy(images.labels[first : first + config.batch_size]).to(model.device)
        adversarial = attack_images(model, clean, labels, text, config, first=first)
        columns: dict[str, Tensor] = {"label": labels}
        for version, pixels in zip(VERSIONS, (clean, adversarial), strict=True):
            with torch.no_grad():
                columns |= image_columns(version, model, pixels, labels, text)
        batches.append({name: column.cpu().numpy() for name, column in columns.items()})
    frame = pd.DataFrame({name: np.concatenate([b[name] for b in batches]) for name in batches[0]})
    frame.insert(0, "index", np.arange(len(frame)))
    frame.insert(0, "split", images.split)
    frame.insert(0, "set", images.name)
    return frame


def attack_images(
    model: PixelClip, clean: Tensor, labels: Tensor, text: Tensor, config: EvaluationConfig, *, first: int
) -> Tensor:
    """Fixed-step PGD that perturbs every image and returns its point of highest cross-entropy."""
    attack = config.attack
    return pgd(
        lambda pixels: cross_entropy(model.scale * cosines(model.features(pixels), text), labels),
        clean,
        start=uniform_start_per_image(clean, attack.epsilon, config.seed, range(first, first + len(clean))),
        epsilon=attack.epsilon,
        step_size=attack.step,
        steps=attack.steps,
        keep_best=True,
    )


def image_columns(
    version: str, model: PixelClip, pixels: Tensor, labels: Tensor, text: Tensor
) -> dict[str, Tensor]:
    cosine = cosines(model.features(pixels), text)
    logits = (model.scale * cosine).double()
    probability = logits.softmax(-1)
    confidence, prediction = probability.max(-1)
    label = labels[:, None]
    of_label = logits.gather(-1, label).squeeze(-1)
    best_other = logits.scatter(-1, label, -torch.inf).amax(-1)
    target = torch.zeros_like(probability).scatter(-1, label, 1.0)
    columns = {
        "prediction": prediction,
        "correct": prediction == labels,
        "confidence": confidence,
        "margin": of_label - best_other,
        "nll": -logits.log_softmax(-1).gather(-1, label).squeeze(-1),
        "brier": (probability - target).square().sum(-1),
        "entropy": uncertainty.entropy(logits),
        "aleatoric": uncertainty.aleatoric(cosine),
        "epistemic": uncertainty.epistemic(cosine),
    }
    return {f"{version}_{name}": column for name, column in columns.items()}


def summarize(records: pd.DataFrame) -> dict[str, float]:
    """Metrics by name (see metrics/names.py) of the records of one evaluation."""
    sets = list(records["set"].unique())
    of_set = {name: set_metrics(records[records["set"] == name]) for name in sets}
    metrics = dict(of_set[sets[0]])
    for metric in of_set[sets[0]] if len(sets) > 1 else ():
        transfer = [of_set[name][metric] for name in sets[1:]]
        metrics[f"transfer.{metric}"] = float(np.mean(transfer))
        metrics |= {f"{name}.{metric}": value for name, value in zip(sets[1:], transfer, strict=True)}
    return metrics


def set_metrics(records: pd.DataFrame) -> dict[str, float]:
    metrics = {}
    for version in VERSIONS:
        correct, confidence = records[f"{version}_correct"], records[f"{version}_confidence"]
        metrics[f"{version}_accuracy"] = float(correct.mean())
        metrics[f"{version}_ece"] = expected_calibration_error(confidence, correct)
        metrics |= {f"{version}_{name}": float(records[f"{version}_{name}"].mean()) for name in MEANS}
    return metrics
