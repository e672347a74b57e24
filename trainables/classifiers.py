"""Image classifiers of timm, to be measured beside CLIP: logits over ImageNet's classes, no texts.

They offer what an evaluation asks of `models.PixelClip`. What stands for cosines is z / kappa - 1 of a logit
z, at the one kappa of all Dirichlet uncertainties: kappa times it has the softmax of the logits, and the
concentrations exp(kappa (cosine + 1)) are exp(z), as those of evidential classifiers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.data.fit import Fit
from trainables.errors import ModelError
from trainables.methods.dirichlet import PUBLISHED_SCALE
from trainables.once import Store
from trainables.sources import TIMM, check_source, random_seed

if TYPE_CHECKING:
    from trainables.models import PixelClip

Measurable: TypeAlias = "PixelClip | PixelNet"
"""What can be measured."""


class PixelNet(nn.Module):
    """A timm classifier of ImageNet's 1,000 classes that takes (B, 3, H, W) pixels in [0, 1] of any size."""

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, data: dict[str, Any]) -> None:
        super().__init__()
        self.net = net
        self.image_size: tuple[int, int] = tuple(data["input_size"][1:])
        self.interpolation = data["interpolation"]
        self.mixed_precision: bool | None = None
        self.register_buffer("mean", torch.tensor(data["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(data["std"]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(PUBLISHED_SCALE), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def fit(self) -> Fit:
        """How images of any size become its input. What timm would cut off their edges besides, they keep."""
        return Fit(self.image_size, "shortest", self.interpolation)

    @property
    def arithmetic(self) -> str:
        return f"{self.device.type} {'bfloat16' if self.mixed_precision else 'float32'}"

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bool(self.mixed_precision))

    def logits(self, pixels: Tensor) -> Tensor:
        """(B, 1000) float32."""
        if pixels.shape[-2:] != self.image_size:
            pixels = F.interpolate(pixels, self.image_size, mode=self.interpolation, antialias=True).clamp(
                0, 1
            )
        with self.autocast():
            return self.net((pixels - self.mean) / self.std).float()

    def fingerprint(self) -> str:
        """Identifies the model by content."""
        digest = hashlib.sha256(repr((self.image_size, self.interpolation, str(self.net))).encode())
        for name, tensor in {**self.net.state_dict(), "mean": self.mean, "std": self.std}.items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def keep_class_texts(self, store: Store) -> None:
        """It has none."""

    def classifier(self, classes: Sequence[str], _: Sequence[str]) -> NetClassifier:
        """Of these classes, by CLIP's names. Raises ModelError for others than ImageNet's."""
        return NetClassifier(self, columns_of(tuple(classes)))


class NetClassifier(nn.Module):
    """Pixels in [0, 1] to logits over some of ImageNet's classes. text: (K,) which; what it is known by."""

    text: Tensor

    def __init__(self, model: PixelNet, columns: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("text", torch.tensor(columns, device=model.device), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def cosines(self, pixels: Tensor) -> Tensor:
        """(B, K) z / kappa - 1, see above."""
        return self.model.logits(pixels)[:, self.text] / PUBLISHED_SCALE - 1

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, K) logits less kappa."""
        return self.model.scale * self.cosines(pixels)


@lru_cache(maxsize=16)
def columns_of(classes: tuple[str, ...]) -> list[int]:
    """Places of these classes among ImageNet's. Two of its names are there twice: of such a name it is the
    class with which all are in ImageNet's order. Raises ModelError for other names."""
    from open_clip import IMAGENET_CLASSNAMES

    places: dict[str, list[int]] = {}
    for place, name in enumerate(IMAGENET_CLASSNAMES):
        places.setdefault(name, []).append(place)
    strange = [name for name, count in Counter(classes).items() if count > len(places.get(name, ()))]
    if strange:
        raise ModelError(
            f"a timm classifier knows ImageNet's classes alone, and {strange[0]!r} is none of them; "
            "measure it on ImageNet, its V2, A, R and Sketch, or on images of your own under CLIP's names"
        )
    found = [list(each) for each in product(*(places[name] for name in classes))]
    ordered = [each for each in found if len(found) == 1 or sorted(set(each)) == each]
    if len(ordered) != 1:
        twice = next(name for name in classes if len(places[name]) > 1)
        raise ModelError(
            f"ImageNet has two classes called {twice!r}, and the order of these does not say which is meant; "
            "give them in ImageNet's order"
        )
    return ordered[0]


@lru_cache(maxsize=1)
def load(name: str, pretrained: str | None, device: str) -> PixelNet:
    """The classifier, frozen and in eval mode. name: `timm:MODEL`.  pretrained: `random`, or None for its own
    weights. Raises ModelError if it can't be had."""
    import timm

    check_source(name, pretrained)
    model, seed = name.removeprefix(TIMM), random_seed(pretrained)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            net = timm.create_model(model, pretrained=seed is None)
        data = timm.data.resolve_model_data_config(net)
    except Exception as error:
        raise ModelError(f"model {name!r} can't be loaded: {' '.join(str(error).split())}") from error
    if net.num_classes != 1000:
        raise ModelError(f"{name} has {net.num_classes} classes; expected ImageNet's 1,000")
    return PixelNet(net, data).to(device).eval().requires_grad_(False)
