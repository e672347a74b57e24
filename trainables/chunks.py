"""Less memory for the same numbers: parts of a batch one after another, and what to do when it runs out."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainables.errors import MemoryShortage
from trainables.progress import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
Encoded = TypeVar("Encoded", Tensor, tuple[Tensor, "Tensor | None"])


def in_chunks(encode: Callable[[Tensor], Encoded], rows: Tensor, size: int | None) -> Encoded:
    """`encode(rows)`, `size` rows at a time, each encoded anew in the backward pass: memory holds one
    chunk's activations. With `size` None or no fewer rows nothing is encoded twice.

    encode: treats every row by itself, without anything random.
    """
    if size is None or len(rows) <= size:
        return encode(rows)
    parts = [
        checkpoint(encode, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in rows.split(size)
    ]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    first, second = zip(*parts, strict=True)
    return torch.cat(first), None if second[0] is None else torch.cat(second)


def slices(count: int, size: int) -> Iterator[slice]:
    """0 to `count` in slices of `size`, the last one perhaps smaller."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an exception of its own for it, the CPU's allocator has not."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def half(size: int, error: RuntimeError) -> int:
    """Half as many images as those that `error` came up with.

    Raises `error` itself if it is not about memory, MemoryShortage if it came up with a single image.
    """
    if not is_out_of_memory(error):
        raise error
    if size == 1:
        reason = str(error).strip().splitlines()[0][:200]
        raise MemoryShortage(
            f"out of memory with a single image at a time ({reason}); give the trial a larger share of the "
            "memory under `resources`, or choose a smaller model or image size"
        ) from error
    return size // 2


def release_memory() -> None:
    """Frees what a failed computation has left: closures hold each other, and with them activations."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def batchwise(compute: Callable[[slice], T], count: int, size: int) -> Iterator[T]:
    """`compute(rows)` for all of `count` rows in order, `size` at a time; half as many from where memory
    has run out. Raises MemoryShortage if it does for a single row."""
    first = 0
    while first < count:
        rows = slice(first, min(first + size, count))
        try:
            result = compute(rows)
        except RuntimeError as error:
            size = half(rows.stop - first, error)
        else:
            yield result
            first = rows.stop
            report(first, count)
            continue
        release_memory()


def in_memory(compute: Callable[..., T], size: int) -> T:
    """`compute(batch_size=size)`; all of it again with half the size where memory runs out. Raises
    MemoryShortage if it does for batches of one."""
    while True:
        try:
            return compute(batch_size=size)
        except RuntimeError as error:
            size = half(size, error)
        release_memory()
