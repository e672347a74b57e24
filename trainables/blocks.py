"""Which of a tower's weights come before its last transformer blocks, and stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from open_clip.transformer import VisionTransformer
from torch import nn

from trainables.errors import ModelError

Parts = list[nn.Module | nn.Parameter]


def freeze_before(blocks: int, tower: str, stem: Parts, layers: Sequence[nn.Module]) -> None:
    """Freezes what comes before a tower's last blocks: its stem, and its other blocks."""
    if len(layers) < blocks:
        has = (
            f"{len(layers)} transformer blocks" if layers else "no transformer blocks that can be told apart"
        )
        raise ModelError(
            f"model.blocks: {blocks}: this model's {tower} has {has}; leave `blocks` out for all"
        )
    for part in (*stem, *layers[: len(layers) - blocks]):
        part.requires_grad_(False)


def image_blocks(visual: Any) -> tuple[Parts, Sequence[nn.Module]]:
    """What comes before an image tower's blocks, and the blocks; none for towers other than transformers.

    open_clip's own `lock` fails on transformers without a projection, and freezes an attention pool.
    """
    if isinstance(visual, VisionTransformer):
        stem = [visual.conv1, visual.class_embedding, visual.positional_embedding, visual.ln_pre]
        return stem, list(visual.transformer.resblocks)
    trunk: Any = getattr(visual, "trunk", nn.Identity())
    children = dict(trunk.named_children())
    if not {"patch_embed", "blocks"} <= set(children):
        return [], []
    names = list(children)  # in the order of a timm transformer's computation
    before = [children[name] for name in names[: names.index("blocks")]]
    return [*trunk.parameters(recurse=False), *before], list(trunk.blocks)


def text_blocks(text: Any) -> tuple[Parts, Sequence[nn.Module]]:
    """As `image_blocks`, for an open_clip text tower; none for those of Hugging Face."""
    if not hasattr(getattr(text, "transformer", None), "resblocks"):
        return [], []
    stem = [text.token_embedding, text.positional_embedding, getattr(text, "cls_emb", None)]
    return [part for part in stem if part is not None], list(text.transformer.resblocks)
