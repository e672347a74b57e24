"""What memory the models of a zoo take, told without allocating any: their weights, as float32.

What a batch takes beside them is not counted: an evaluation halves its batches where memory runs out, and no
result depends on that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainables import models
from trainables.errors import ModelError
from trainables.memory import gib, gpus_to_plan_for, share, size_of
from trainables.sources import TIMM

LARGEST = 5
"""Models that are named."""


def plan(
    trials: Sequence[dict[str, Any]], *, cpus: float, gpus: float, concurrent: int | None = None
) -> list[str]:
    """Lines that say what fits. cpus, gpus, concurrent: see `memory.share`."""
    names = dict.fromkeys(trial["model"]["name"] for trial in trials)
    sizes = {name: size for name in names if (size := weights_of(name)) is not None}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    shown = ", ".join(f"{name} {gib(sizes[name])}" for name in largest)
    lines = [f"weights of {len(sizes)} architectures, the largest: {shown or 'none'}"]
    if unknown := [name for name in names if name not in sizes]:
        lines.append(f"  not told without a download: {', '.join(unknown)}")
    if not gpus:
        return [*lines, f"  {fitting(sizes, share('cpu', cpus=cpus, gpus=gpus, concurrent=concurrent))}"]
    own = {label: int(min(gpus, 1) * total) for label, total in gpus_to_plan_for()}
    return [*lines, *(f"  {label}: {fitting(sizes, limit)}" for label, limit in own.items())]


def fitting(sizes: Mapping[str, int], limit: int) -> str:
    """How many models leave half of `limit` bytes for the images."""
    too_large = [name for name, size in sizes.items() if 2 * size > limit]
    rest = f", but {', '.join(too_large)}" if too_large else ""
    return f"all take less than half of a trial's {gib(limit)}{rest}"


def weights_of(name: str) -> int | None:
    """Bytes; None of a model whose shapes can't be told here."""
    try:
        made = classifier(name) if name.startswith(TIMM) else models.blueprint(name).clip
    except ModelError:
        return None
    return size_of(made.state_dict().values())


def classifier(name: str) -> torch.nn.Module:
    import timm

    with torch.device("meta"):
        return timm.create_model(name.removeprefix(TIMM), pretrained=False)
