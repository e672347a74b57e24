"""Checkpoints: flat safetensors files, whole or not there at all, without any pickled object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables.data.cache import whole

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FILE = "checkpoint.safetensors"


def save(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Replaces the folder's checkpoint at once: a reader sees the old one or the new one."""
    with whole(folder / FILE) as written:
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, written)


def load(folder: Path) -> dict[str, Tensor] | None:
    """The folder's checkpoint on the CPU; None if there is none, or it can't be read."""
    try:
        return load_file(folder / FILE)
    except (FileNotFoundError, SafetensorError):
        return None
