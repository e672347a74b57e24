"""How many optimiser steps a trial has, and whether its learning rate gets anywhere. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.config import TrialConfig
from trainables.data import registry
from trainables.data.config import DataConfig, as_data_set
from trainables.errors import DataError


def per_epoch(images: int, batch_size: int) -> int:
    """Whole batches of an epoch, at least one."""
    return max(1, images // batch_size)


def training_images(data: DataConfig) -> int:
    """As many as a trial trains on, without choosing which. Raises DataError."""
    there = len(registry.listed(as_data_set(data.train), "train").labels)
    return there if data.images is None else min(data.images, there)


def steps(trials: Sequence[dict[str, Any]]) -> tuple[list[int], list[str]]:
    """The steps of each trial, in order, and a line if the learning rate of one is still rising when it ends;
    of those the shortest. Both are empty where the training images are not there."""
    configs = [TrialConfig.model_validate(trial) for trial in trials]
    try:
        images = [training_images(config.data) for config in configs]
    except DataError:
        return [], []
    counts = [
        per_epoch(of, config.batch_size) * config.epochs for config, of in zip(configs, images, strict=True)
    ]
    rising = [
        (count, config, of)
        for count, config, of in zip(counts, configs, images, strict=True)
        if config.optimizer.warmup_steps >= count
    ]
    if not rising:
        return counts, []
    count, config, of = min(rising, key=lambda each: each[0])
    return counts, [
        f"Warning: optimizer.warmup_steps is {config.optimizer.warmup_steps}, and a trial can have as few as "
        f"{count} steps ({config.epochs} x {of} images in batches of {config.batch_size}): its learning rate "
        "is still rising when it ends; give fewer warmup_steps, a smaller batch_size, or more epochs"
    ]
