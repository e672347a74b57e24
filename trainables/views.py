"""The batch as a loss sees it: logits, cosines and features of each model on each version.

Everything is computed when first asked for, and at most once. Shapes: `methods.base.View`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainables.models import PixelClip, cosines

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainables.methods.base import View

    Rows = Callable[[str, Callable[[View], Tensor]], Tensor]


class Batch:
    """The tensors that all models see.

    clean: (B, 3, H, W) pixels.  labels: (B,).  attack: gives the attacked pixels, when first wanted.
    draw_captions: gives tokens (B, L) of one caption per image.
    chunk: images, and captions, that models encode at a time; see `chunks.in_chunks`.
    """

    def __init__(
        self,
        clean: Tensor,
        labels: Tensor,
        attack: Callable[[], Tensor] | None = None,
        draw_captions: Callable[[], Tensor] | None = None,
        chunk: int | None = None,
    ) -> None:
        self.clean, self.labels, self.chunk = clean, labels, chunk
        self._attack, self._draw_captions = attack, draw_captions

    @cached_property
    def adversarial(self) -> Tensor:
        """(B, 3, H, W) attacked pixels; the clean ones themselves without an attack."""
        return self.clean if self._attack is None else self._attack()

    @cached_property
    def captions(self) -> Tensor:
        """Tokens (B, L) of one caption per image, drawn once: student and teacher see the same."""
        assert self._draw_captions is not None
        return self._draw_captions()


class ClassText:
    """The class texts of one step, encoded once whatever the number of parts that its batch is seen in.

    encode: gives the (K, D) unit text features.  gradient: they are trained. A loss sees them as a leaf
    then, which sums up the gradients of all parts, and `backward` sends the sum through the text tower.
    """

    def __init__(self, encode: Callable[[], Tensor], *, gradient: bool) -> None:
        self._encode = encode
        # at once: an attack, during which no weight asks for a gradient, may be the first to want them
        self._trained = encode() if gradient else None

    @cached_property
    def detached(self) -> Tensor:
        return self._encode() if self._trained is None else self._trained.detach()

    @cached_property
    def leaf(self) -> Tensor:
        """`detached`, where the texts are not trained."""
        return self.detached if self._trained is None else self._trained.detach().requires_grad_()

    def backward(self) -> None:
        if self._trained is not None:
            self._trained.backward(self.leaf.grad)


class ImageView:
    """One model on one version of the batch. Implements `methods.base.View`.

    rows: serves what was computed of these very images before, by name; see `trainables.frozen`.
    """

    def __init__(
        self,
        model: PixelClip,
        pixels: Tensor,
        class_text: Callable[[], Tensor],
        batch: Batch,
        *,
        gradient: bool,
        rows: Rows | None = None,
    ) -> None:
        self.model, self.pixels, self.batch = model, pixels, batch
        self.gradient, self.rows = gradient, rows
        self._class_text = class_text

    @property
    def class_text(self) -> Tensor:
        """(K, D) unit text features of the classes, asked for only where a loss is about classes."""
        return self._class_text()

    @cached_property
    def _encoded(self) -> tuple[Tensor, Tensor | None]:
        with torch.set_grad_enabled(self.gradient):
            return self.model.encode(self.pixels, self.batch.chunk)

    @cached_property
    def features(self) -> Tensor:
        if self.rows is not None:
            return self.rows("features", lambda view: view.features)
        return self._encoded[0]

    @cached_property
    def tokens(self) -> Tensor:
        with torch.set_grad_enabled(self.gradient):
            features, patches = self._encoded
            return torch.cat([features[:, None], self.model.patch_features(patches)], dim=1)

    @cached_property
    def cosines(self) -> Tensor:
        return cosines(self.features, self.class_text)

    @cached_property
    def logits(self) -> Tensor:
        with torch.set_grad_enabled(self.gradient):
            return self.model.scale * self.cosines

    @cached_property
    def contrast(self) -> Tensor:
        with torch.set_grad_enabled(self.gradient):
            text = self.model.text_features(self.batch.captions, self.batch.chunk)
            return self.model.scale * cosines(self.features, text)

    @property
    def label_text(self) -> Tensor:
        return self.class_text[self.batch.labels]

    def derived(self, name: str, compute: Callable[[View], Tensor]) -> Tensor:
        return compute(self) if self.rows is None else self.rows(name, compute)


class ModelViews:
    """One model on the clean and on the attacked batch. With `gradient` False it gets none.

    clean_rows: serves what is known of the clean batch already, see `ImageView`.
    """

    def __init__(
        self,
        model: PixelClip,
        class_text: Callable[[], Tensor],
        batch: Batch,
        *,
        gradient: bool,
        clean_rows: Rows | None = None,
    ) -> None:
        self.model, self.class_text, self.batch, self.gradient = model, class_text, batch, gradient
        self._clean_rows = clean_rows

    def view(self, pixels: Tensor, rows: Rows | None = None) -> ImageView:
        """The model on any version of the batch."""
        return ImageView(self.model, pixels, self.class_text, self.batch, gradient=self.gradient, rows=rows)

    @cached_property
    def clean(self) -> ImageView:
        return self.view(self.batch.clean, self._clean_rows)

    @cached_property
    def adversarial(self) -> ImageView:
        if self.batch.adversarial is self.batch.clean:
            return self.clean
        return self.view(self.batch.adversarial)


class BatchViews:
    """Implements `methods.base.Views`."""

    def __init__(
        self,
        trained: ModelViews,
        detached: ModelViews,
        frozen: Callable[[], ModelViews],
        average: Callable[[], ModelViews],
    ) -> None:
        self.labels = trained.batch.labels
        self.trained, self.detached = trained, detached
        self._frozen, self._average = frozen, average

    def without_gradient(self) -> BatchViews:
        """The same batch as an attack's loss may see it: what it is the first to ask for stays, and no weight
        asks for a gradient meanwhile."""
        return BatchViews(self.detached, self.detached, lambda: self.frozen, lambda: self.average)

    @property
    def clean(self) -> ImageView:
        return self.trained.clean

    @property
    def adversarial(self) -> ImageView:
        return self.trained.adversarial

    @cached_property
    def frozen(self) -> ModelViews:
        return self._frozen()

    @cached_property
    def average(self) -> ModelViews:
        return self._average()

    @property
    def projections(self) -> tuple[Tensor, Tensor]:
        return self.trained.model.projections()

    @property
    def patch_grid(self) -> tuple[int, int]:
        return self.trained.model.patch_grid

    @property
    def image_size(self) -> tuple[int, int]:
        return self.trained.model.image_size
