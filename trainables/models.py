"""CLIP as the attacked model: pixels in [0, 1] in, logits over class texts out.

Resizing and the tower's own normalisation happen inside, so an epsilon is a distance in [0, 1]
pixels at the data set's native size, and gradients reach the pixels.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any, TypeAlias

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from trainables.blocks import freeze_before, image_blocks, text_blocks
from trainables.chunks import in_chunks
from trainables.data.fit import Fit
from trainables.errors import ModelError
from trainables.once import NOWHERE, Store, array_kind
from trainables.pixels import to_device
from trainables.progress import counted, named
from trainables.sources import check_source, open_clip_name, random_seed

Clip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP
Tokenizer = Callable[[Sequence[str]], Tensor]

CLASS_TEXT = array_kind("class-text")
PROBE = "Sphinx of black quartz, judge my 12,345 vows!"
"""A text by which tokenisers differ."""


class PixelClip(nn.Module):
    """An open_clip model that takes (B, 3, H, W) float pixels in [0, 1] of any size."""

    clip: Clip
    mean: Tensor
    std: Tensor

    def __init__(self, clip: Clip, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.channels_last = False
        self.mixed_precision: bool | None = None
        self._fingerprint: tuple[object, str] = (None, "")
        self._texts, self._text_model = NOWHERE, ""
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
    def fit(self) -> Fit:
        """How images of any size become this model's input."""
        preprocess = self.clip.visual.preprocess_cfg
        return Fit(
            self.image_size,
            preprocess.get("resize_mode", "shortest"),
            self.interpolation,
            preprocess.get("fill_color", 0),
        )

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), a scalar; 100 in released CLIP models."""
        return self.clip.logit_scale.exp()

    @property
    def mixed(self) -> bool:
        """Whether it computes in bfloat16: as `mixed_precision` says, by default on CUDA alone."""
        return self.device.type == "cuda" if self.mixed_precision is None else self.mixed_precision

    @property
    def arithmetic(self) -> str:
        """What of its outputs' rounding is known: device type and precision."""
        return f"{self.device.type} {'bfloat16' if self.mixed else 'float32'}"

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 where the model is `mixed`. Weights stay float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, D) float32 image features, unnormalised."""
        return self.encode(pixels)[0]

    def encode(self, pixels: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, D) float32 image features, unnormalised, and the tower's (B, P, W) patch outputs before
        its projection; None for towers without patches. See `patch_features`.

        chunk: see `chunks.in_chunks`.
        """
        return in_chunks(self._encode, pixels, chunk)

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        if pixels.shape[-2:] != self.image_size:
            pixels = F.interpolate(pixels, self.image_size, mode=self.interpolation, antialias=True)
            pixels = pixels.clamp(0, 1)
        if self.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self.autocast(), patch_outputs(self.clip.visual):
            encoded = self.clip.encode_image((pixels - self.mean) / self.std)
        features, patches = encoded if isinstance(encoded, tuple) else (encoded, None)
        return features.float(), patches

    def patch_features(self, patches: Tensor | None) -> Tensor:
        """(B, P, D) float32 features of the patches of `encode`, row by row, unnormalised.

        Raises ModelError for towers without patches.
        """
        if patches is None:
            raise ModelError("this model's image tower has no patch tokens, which TGA-ZSR needs")
        visual = self.clip.visual
        with self.autocast():
            if visual.final_ln_after_pool:
                patches = visual.ln_post(patches)
            projected = patches if visual.proj is None else patches @ visual.proj
        return projected.float()

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        rows, columns = self.clip.visual.grid_size
        return rows, columns

    def fingerprint(self) -> str:
        """Identifies the model by content: weights, normalisation, input size, architecture and tokeniser.
        The weights are read again only if they have changed, which changes behind autograd's back, through
        `.data`, don't show."""
        tensors = {**self.clip.state_dict(), "mean": self.mean, "std": self.std}
        state = [(tensor.data_ptr(), tensor._version) for tensor in tensors.values()]
        if self._fingerprint[0] != state:
            self._fingerprint = state, self._digest(tensors)
        return self._fingerprint[1]

    def _digest(self, tensors: dict[str, Tensor]) -> str:
        about = self.image_size, self.interpolation, str(self.clip), self.tokenizer([PROBE]).tolist()
        digest = hashlib.sha256(repr(about).encode())
        for name, tensor in tensors.items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def text_features(self, tokens: Tensor, chunk: int | None = None) -> Tensor:
        """(N, D) float32 unit vectors of (N, L) tokens.  chunk: see `chunks.in_chunks`."""
        return in_chunks(self._text_features, tokens, chunk)

    def _text_features(self, tokens: Tensor) -> Tensor:
        with self.autocast():
            return F.normalize(self.clip.encode_text(tokens).float(), dim=-1)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(texts).to(self.device)

    def keep_class_texts(self, store: Store) -> None:
        """Class texts are taken from `store` from now on, by this model and by copies of it whose text tower
        is not trained: its text tower must not change any more."""
        self._texts, self._text_model = store, "" if store.folder is None else self.fingerprint()

    def encode_classes(self, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
        """(K, D) detached unit vectors of K classes: the normalised mean over the templates of the unit
        vectors of each, as CLIP's zero-shot classifiers are made (Radford et al. 2021, section 3.1.4)."""
        if self._texts.folder is None:
            return self._encode_classes(classes, templates)
        key = {
            "model": self._text_model,
            "arithmetic": self.arithmetic,
            "classes": list(classes),
            "templates": list(templates),
        }
        kept = self._texts.get(
            CLASS_TEXT, key, lambda: self._encode_classes(classes, templates).cpu().numpy()
        )
        return to_device(kept, self.device)

    def classifier(self, classes: Sequence[str], templates: Sequence[str]) -> Classifier:
        """The zero-shot classifier of K classes."""
        return Classifier(self, self.encode_classes(classes, templates))

    @torch.no_grad()
    def _encode_classes(self, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
        with named("class texts"):
            return self.class_texts(counted(self.class_tokens(classes, templates)))

    def class_tokens(self, classes: Sequence[str], templates: Sequence[str]) -> list[Tensor]:
        """(K, L) tokens of K classes in each template."""
        return [self.tokens(class_prompts(template, classes)) for template in templates]

    def class_texts(self, tokens: Iterable[Tensor], chunk: int | None = None) -> Tensor:
        """(K, D) class texts as `encode_classes` gives them, with gradient.  tokens: see `class_tokens`."""
        texts = [self.text_features(each, chunk) for each in tokens]
        return texts[0] if len(texts) == 1 else F.normalize(torch.stack(texts).mean(0), dim=-1)

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


class Classifier(nn.Module):
    """The attacked model: pixels in [0, 1] to logits over fixed class texts.

    text: (K, D) unit text features.
    """

    text: Tensor

    def __init__(self, model: PixelClip, text: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("text", text, persistent=False)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def cosines(self, pixels: Tensor) -> Tensor:
        """(B, K) float32 cosines."""
        return cosines(self.model.features(pixels), self.text)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, K) logits: exp(logit_scale) times the cosines."""
        return self.model.scale * self.cosines(pixels)


@contextmanager
def patch_outputs(visual: nn.Module) -> Iterator[None]:
    """Inside, a plain vision transformer returns its patch outputs too, which it computes anyway."""
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None:
        yield
        return
    before, visual.output_tokens = visual.output_tokens, True
    try:
        yield
    finally:
        visual.output_tokens = before


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

    name: `clip-tiny`, an open_clip architecture (then `pretrained` is a weight tag, or `random`),
    `hf-hub:ORG/REPO` or `local-dir:FOLDER`.  Raises ModelError if it can't be had.
    """
    check_source(name, pretrained)
    seed = random_seed(pretrained)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="QuickGELU mismatch")  # wrong results otherwise
            clip = pretrained_clip(name, pretrained, device) if seed is None else random_clip(name, seed)
        tokenizer = open_clip.get_tokenizer(open_clip_name(name))
        check_vocabulary(clip, tokenizer)
    except Exception as error:
        source = f"{name!r} ({pretrained or 'own weights'})"
        raise ModelError(f"model {source} can't be loaded: {' '.join(str(error).split())}") from error
    return PixelClip(clip, tokenizer).to(device).eval().requires_grad_(False)


def pretrained_clip(name: str, pretrained: str | None, device: str) -> Clip:
    """All of its weights and no others: open_clip is strict about their names, once it finds any."""
    config = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    return open_clip.create_model(
        open_clip_name(name),
        pretrained=pretrained,
        precision="fp32",
        device=device,
        force_quick_gelu=config.get("quick_gelu", False),
        require_pretrained=True,
        weights_only=True,  # a pickle can hold code
    )


def random_clip(name: str, seed: int) -> Clip:
    """An architecture with random weights, the same in every process and on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_without_weights(name, "cpu")


def create_without_weights(name: str, device: str) -> Clip:
    with quiet():
        return open_clip.create_model(
            open_clip_name(name), load_weights=False, pretrained_text=False, precision="fp32", device=device
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, nothing is said about missing weights, which are not wanted."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def check_vocabulary(clip: Clip, tokenizer: Tokenizer) -> None:
    """Raises ModelError where open_clip takes its own tokenizer for a tower with another vocabulary,
    which it does for a configuration without `hf_tokenizer_name`."""
    embedding = getattr(getattr(clip, "text", clip), "token_embedding", None)
    if isinstance(tokenizer, open_clip.SimpleTokenizer) and embedding is not None:
        words = embedding.num_embeddings
        if words != tokenizer.vocab_size:
            raise ModelError(
                f"its text tower knows {words} tokens and open_clip's tokenizer has {tokenizer.vocab_size}; "
                "name the right one as `hf_tokenizer_name` in the configuration's `text_cfg`"
            )


def blueprint(name: str) -> PixelClip:
    """The model's shapes on the meta device: parameters that take no memory and have no values.

    Of a model on the hub, configuration and weights are downloaded. Raises ModelError.
    """
    try:
        with torch.device("meta"):
            clip = create_without_weights(name, "meta")
    except Exception as error:
        raise ModelError(f"model {name!r} can't be made: {' '.join(str(error).split())}") from error
    return PixelClip(clip, no_tokenizer).to("meta").eval().requires_grad_(False)


def no_tokenizer(texts: Sequence[str]) -> Tensor:
    raise NotImplementedError("a blueprint reads no texts")


def trainable_copy(model: PixelClip, *, text: bool, blocks: int | None = None) -> PixelClip:
    """A copy whose image tower asks for gradients; with `text` both towers and the logit scale.

    blocks: of each tower that does, only so many transformer blocks at its end and what follows them.
    Raises ModelError for a tower that has fewer, or none.
    """
    copied = PixelClip(copy.deepcopy(model.clip), model.tokenizer).to(model.device)
    copied.clip.requires_grad_(text)
    copied.clip.visual.requires_grad_(True)
    if not text:
        copied._texts, copied._text_model = model._texts, model._text_model
    if blocks is not None:
        freeze_before(blocks, "image tower", *image_blocks(copied.clip.visual))
        if text:
            freeze_before(blocks, "text tower", *text_blocks(getattr(copied.clip, "text", copied.clip)))
    return copied
