"""Checkpoints: flat safetensors files, whole or not there at all, without any pickled object.

A trial's folder holds one that training goes on from, `FILE`, and the trained weights after each epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables.data.cache import whole

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FILE = "checkpoint.safetensors"
MODEL = "model."
"""What the names of the trained weights begin with."""


def save(file: Path, tensors: dict[str, Tensor]) -> None:
    """Replaces the file at once: a reader sees the old one or the new one."""
    with whole(file) as written:
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, written)


def load(file: Path) -> dict[str, Tensor] | None:
    """The file's tensors on the CPU; None if there is none, or it can't be read."""
    try:
        return load_file(file)
    except (FileNotFoundError, SafetensorError):
        return None


def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a checkpoint that are trained weights, by their names in it."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
