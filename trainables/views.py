"""The batch as a loss sees it: logits, cosines and features of each model on each version.

Everything is computed when first asked for, and at most once. Shapes: `methods.base.View`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainables.models import PixelClip, cosines

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Batch:
    """The tensors that all models see."""

    clean: Tensor
    adversarial: Tensor
    labels: Tensor
    draw_captions: Callable[[], Tensor]

    @cached_property
    def captions(self) -> Tensor:
        """Tokens (B, L) of one caption per image, drawn once: student and teacher see the same."""
        return self.draw_captions()


class ImageView:
    """One model on one version of the batch."""

    def __init__(
        self, model: PixelClip, pixels: Tensor, class_text: Tensor, batch: Batch, *, gradient: bool
    ) -> None:
        self.model, self.pixels, self.class_text, self.batch = model, pixels, class_text, batch
        self.gradient = gradient

    @cached_property
    def features(self) -> Tensor:
        with torch.set_grad_enabled(self.gradient):
            return self.model.features(self.pixels)

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
            text = self.model.text_features(self.batch.captions)
            return self.model.scale * cosines(self.features, text)


class ModelViews:
    """One model on the clean and on the attacked batch. With `gradient` False it gets none.

    clean_features: (B, D) already computed features of the clean batch, if there are any.
    """

    def __init__(
        self,
        model: PixelClip,
        class_text: Tensor,
        batch: Batch,
        *,
        gradient: bool,
        clean_features: Tensor | None = None,
    ) -> None:
        self._view = lambda pixels: ImageView(model, pixels, class_text, batch, gradient=gradient)
        self._batch = batch
        self._clean_features = clean_features

    @cached_property
    def clean(self) -> ImageView:
        view = self._view(self._batch.clean)
        if self._clean_features is not None:
            view.features = self._clean_features
        return view

    @cached_property
    def adversarial(self) -> ImageView:
        if self._batch.adversarial is self._batch.clean:
            return self.clean
        return self._view(self._batch.adversarial)


class BatchViews:
    """Implements `methods.base.Views`."""

    def __init__(
        self,
        batch: Batch,
        trained: ModelViews,
        frozen: Callable[[], ModelViews],
        average: Callable[[], ModelViews],
        projections: Callable[[], tuple[Tensor, Tensor]],
    ) -> None:
        self.labels = batch.labels
        self._trained, self._frozen, self._average = trained, frozen, average
        self._projections = projections

    @property
    def clean(self) -> ImageView:
        return self._trained.clean

    @property
    def adversarial(self) -> ImageView:
        return self._trained.adversarial

    @cached_property
    def frozen(self) -> ModelViews:
        return self._frozen()

    @cached_property
    def average(self) -> ModelViews:
        return self._average()

    @property
    def projections(self) -> tuple[Tensor, Tensor]:
        return self._projections()
