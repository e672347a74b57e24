"""What a frozen model says of every training image, computed once and never served for anything else.

A frozen model on images that are not augmented gives the same features in every epoch of every trial
of a sweep. They are kept in a store under a key of all they depend on, as files that the trials of a
machine map: one copy in its page cache, of which only a batch's rows go to the device.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainables.once import NOWHERE, Store, array_kind
from trainables.pixels import batches, to_device
from trainables.progress import named, report
from trainables.views import Batch, ImageView

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trainables.data.images import ImageSet
    from trainables.methods.base import View
    from trainables.models import PixelClip

BATCH_SIZE = 256

FROZEN = array_kind("frozen")


class StaleCache(Exception):
    """A cache was asked about something that it does not hold."""


@dataclass(frozen=True)
class FrozenKey:
    """All that a frozen model's output depends on, by content. transform: what becomes of an image
    before the model sees it, input size and normalisation apart, which are the model's own.
    arithmetic: device type and precision."""

    model: str
    images: str
    prompts: str
    arithmetic: str
    transform: str = "none"

    @classmethod
    def of(cls, model: PixelClip, images: ImageSet, transform: str = "none") -> FrozenKey:
        text = hashlib.sha256(repr((images.classes, images.templates)).encode()).hexdigest()[:16]
        return cls(model.fingerprint(), images.fingerprint(), text, model.arithmetic, transform)


class FrozenCache:
    """Outputs of one frozen model on one set of images, as (N, ...) arrays by name, kept in `store`."""

    def __init__(
        self, key: FrozenKey, model: PixelClip, images: ImageSet, class_text: Tensor, store: Store
    ) -> None:
        self.key, self.store = key, store
        self._model, self._images, self._class_text = model, images, class_text
        self._outputs: dict[str, NDArray[Any]] = {}

    def rows(
        self, key: FrozenKey, indices: NDArray[np.int64], name: str, compute: Callable[[View], Tensor]
    ) -> Tensor:
        """Rows, on the model's device, of what `compute` gives for all images, which happens at the first
        call for `name`.

        indices: (B,) of the set's images.  Raises StaleCache if `key` is not the cache's own.
        """
        self.check(key)
        if name not in self._outputs:
            about = {**dataclasses.asdict(self.key), "name": name}
            self._outputs[name] = self.store.get(FROZEN, about, lambda: self._compute(compute))
        return to_device(self._outputs[name][indices], self._model.device)

    def check(self, key: FrozenKey) -> None:
        other = [f.name for f in dataclasses.fields(key) if getattr(key, f.name) != getattr(self.key, f.name)]
        if other:
            raise StaleCache(f"the frozen outputs are of another {' and '.join(other)}; compute them anew")

    @torch.no_grad()
    def _compute(self, compute: Callable[[View], Tensor]) -> NDArray[Any]:
        outputs = []
        with named("frozen features"):
            for rows, pixels, labels in batches(self._images, BATCH_SIZE, self._model.device):
                batch = Batch(pixels, labels)
                view = ImageView(self._model, pixels, lambda: self._class_text, batch, gradient=False)
                outputs.append(compute(view).cpu().numpy())
                report(rows.stop, len(self._images))
        return np.concatenate(outputs)


_latest: list[FrozenCache] = []


def frozen_cache(
    key: FrozenKey, model: PixelClip, images: ImageSet, class_text: Tensor, store: Store = NOWHERE
) -> FrozenCache:
    """The cache of an earlier trial in this process if it is of the same key, else a new one.

    class_text: (K, D) unit text features of the key's prompts by `model`.
    """
    if not _latest or (_latest[0].key, _latest[0].store) != (key, store):
        _latest[:] = [FrozenCache(key, model, images, class_text, store)]
    return _latest[0]
