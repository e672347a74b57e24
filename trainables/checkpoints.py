"""Checkpoints: flat safetensors files, whole or not there at all, without any pickled object.

A trial's folder holds one that training goes on from, `FILE`, the one before it, `PREVIOUS`, and the trained
weights after each epoch. Each holds a digest of its tensors, so that a file whose bytes have changed is not
taken for a good one.
"""

from __future__ import annotations

import errno
import hashlib
import re
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trainables.data.cache import whole

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FILE = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
MODEL = "model."
"""What the names of the trained weights begin with."""
DIGEST = "sha256"


def save(file: Path, tensors: dict[str, Tensor]) -> None:
    """Replaces the file at once: a reader sees the old one or the new one. Raises OSError, also where the
    disk is full."""
    with whole(file) as written:
        _write(written, tensors)


def advance(folder: Path, tensors: dict[str, Tensor]) -> None:
    """As `save`, for the folder's `FILE`; what that was is `PREVIOUS` from now on."""
    file = folder / FILE
    with whole(file) as written:
        _write(written, tensors)
        if file.exists():
            file.replace(folder / PREVIOUS)


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
    try:
        save_file(tensors, file, metadata={DIGEST: digest(tensors)})
    except SafetensorError as error:  # has no other sign of what the system said
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), str(error), str(file)) from error
        raise OSError(errno.EIO, str(error), str(file)) from error


def load(file: Path) -> dict[str, Tensor] | None:
    """The file's tensors on the CPU; None if there is none, or if it is damaged. Files of earlier versions
    have no digest."""
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            written = (opened.metadata() or {}).get(DIGEST)
    except (FileNotFoundError, SafetensorError):
        return None
    return tensors if written in (None, digest(tensors)) else None


def latest(folder: Path) -> dict[str, Tensor] | None:
    """What training goes on from: the folder's checkpoint, or the one before it if that is damaged."""
    return load(folder / FILE) or load(folder / PREVIOUS)


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors on the CPU."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a checkpoint that are trained weights, by their names in it."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
