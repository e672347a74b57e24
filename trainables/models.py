"""CLIP as the attacked model: pixels in [0, 1] in, logits over class texts out.

Resizing and the tower's own normalisation happen inside, so an epsilon is a distance in [0, 1]
pixels at the data set's native size, and gradients reach the pixels.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.embedded import MODELS
from trainables.errors import ModelError

Clip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP
Tokenizer = Callable[[Sequence[str]], Tensor]


class PixelClip(nn.Module):
    """An open_clip model that takes (B, 3, H, W) float pixels in [0, 1] of any size."""

    clip: Clip
    mean: Tensor
    std: Tensor

    def __init__(self, clip: Clip, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        preprocess = clip.visual.preprocess_cfg
        self.register_buffer("mean", torch.tensor(preprocess["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess["std"]).view(3, 1, 1), persistent=False)
        self.interpolation = preprocess.get("interpolation", "bicubic")

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def image_size(self) -> tuple[int, int]:
        size = self.clip.visual.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), a scalar; 100 in released CLIP models."""
        return self.clip.logit_scale.exp()

    def autocast(self) -> torch.autocast:
        """bfloat16 on CUDA, full precision elsewhere. The weights themselves stay float32."""
        on_gpu = self.device.type == "cuda"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on_gpu)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, D) float32 image features, unnormalised."""
        if pixels.shape[-2:] != self.image_size:
            pixels = F.interpolate(pixels, self.image_size, mode=self.interpolation, antialias=True)
            pixels = pixels.clamp(0, 1)
        with self.autocast():
            return self.clip.encode_image((pixels - self.mean) / self.std).float()

    def text_features(self, tokens: Tensor) -> Tensor:
        """(N, D) float32 unit vectors of (N, L) tokens."""
        with self.autocast():
            return F.normalize(self.clip.encode_text(tokens).float(), dim=-1)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(texts).to(self.device)

    @torch.no_grad()
    def encode_classes(self, prompts: Sequence[str]) -> Tensor:
        """(K, D) detached unit vectors of K class prompts."""
        return self.text_features(self.tokens(prompts))

    def projections(self) -> tuple[Tensor, Tensor]:
        """Visual (D_v, D) and text (D_t, D) projection weights.

        Raises ModelError for towers without a linear projection.
        """
        visual = getattr(self.clip.visual, "proj", None)
        if visual is None and hasattr(self.clip.visual, "attnpool"):
            visual = self.clip.visual.attnpool.c_proj.weight.T
        text = getattr(getattr(self.clip, "text", self.clip), "text_projection", None)
        if isinstance(text, nn.Linear):
            text = text.weight.T
        if not isinstance(visual, Tensor) or not isinstance(text, Tensor):
            raise ModelError("this model has no linear image and text projections, which CaRot needs")
        return visual, text


def cosines(features: Tensor, text: Tensor) -> Tensor:
    """(B, K) float32 cosines of unnormalised image features and unit text features."""
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=-1) @ text.float().T


def class_prompts(template: str, classes: Sequence[str]) -> list[str]:
    """`template` with each class name in the place of `{}` or `{c}`."""
    return [template.replace("{c}", "{}").replace("{}", name) for name in classes]


@lru_cache(maxsize=1)
def load(name: str, pretrained: str | None, device: str) -> PixelClip:
    """The pre-trained model, frozen and in eval mode; kept for the next trial in this process.

    name: `clip-tiny`, an open_clip architecture (then `pretrained` is a weight tag),
    `hf-hub:ORG/REPO` or `local-dir:FOLDER`.  Raises ModelError if it can't be had.
    """
    source = f"local-dir:{MODELS[name]}" if name in MODELS else name
    config = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="QuickGELU mismatch")  # wrong results otherwise
            clip = open_clip.create_model(
                source,
                pretrained=pretrained,
                precision="fp32",
                device=device,
                force_quick_gelu=config.get("quick_gelu", False),
            )
        tokenizer = open_clip.get_tokenizer(source)
    except Exception as error:
        source = f"{name!r} ({pretrained or 'own weights'})"
        raise ModelError(f"model {source} can't be loaded: {' '.join(str(error).split())}") from error
    return PixelClip(clip, tokenizer).to(device).eval().requires_grad_(False)


def trainable_copy(model: PixelClip, *, text: bool) -> PixelClip:
    """A copy whose image tower asks for gradients; with `text` both towers and the logit scale."""
    copied = PixelClip(copy.deepcopy(model.clip), model.tokenizer).to(model.device)
    copied.clip.requires_grad_(text)
    copied.clip.visual.requires_grad_(True)
    return copied
