"""The licence of the weights that a fine-tuned model was made from, where it is known for sure.

By open_clip's weight tag, from the model card of a folder, or unknown: nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from trainables.embedded import MODELS
from trainables.sources import split_name

if TYPE_CHECKING:
    from trainables.config import ModelConfig

UNKNOWN = "unknown"

BY_TAG = {
    "openai": "mit",
    "laion400m_": "mit",
    "laion2b_": "mit",
    "laion5b_": "mit",
    "laion_aesthetic_": "mit",
    "datacomp_": "mit",
    "commonpool_": "mit",
    "metaclip_": "cc-by-nc-4.0",
    "webli": "apache-2.0",
    "dfn2b": "other",
    "dfn5b": "other",
}
"""Hugging Face's name of the licence by weight tag; one that ends in `_` stands for all tags that begin
so. `other` is Apple's own licence."""

EMBEDDED = (
    "unknown; made by clip-sweeper from Fashion-MNIST (MIT licence, Zalando SE) and scikit-learn's digits, "
    "without a licence of its own"
)


@dataclass(frozen=True)
class Licence:
    """identifier: Hugging Face's name, `unknown` or `other` included. text: a sentence that says it."""

    identifier: str
    text: str


def hub_id(model: ModelConfig) -> str | None:
    """ORG/REPO of the weights on Hugging Face; None where there is none."""
    schema, identifier = split_name(model.name)
    if schema:
        return identifier if schema == "hf-hub" else None
    if model.pretrained is None:
        return None
    import open_clip

    found: str = open_clip.get_pretrained_cfg(model.name, model.pretrained).get("hf_hub", "")
    return found.rstrip("/") or None


def licence(model: ModelConfig) -> Licence:
    """The licence of the weights that `model` names."""
    if model.name in MODELS:
        return Licence(UNKNOWN, EMBEDDED)
    where = hub_id(model)
    see = f"; see https://huggingface.co/{where}" if where else ""
    schema, folder = split_name(model.name)
    if schema == "local-dir":
        found = front_matter(Path(folder) / "README.md").get("license", UNKNOWN)
        source = "by the model card in its folder" if found != UNKNOWN else "its folder names none"
        return Licence(str(found), f"{found}, {source}")
    found = by_tag(model.pretrained)
    name = "Apple's own licence" if found == "other" else found
    return Licence(found, f"{name}{see}")


def by_tag(tag: str | None) -> str:
    matches = [name for known, name in BY_TAG.items() if tag and matching(known, tag)]
    return matches[0] if matches else UNKNOWN


def matching(known: str, tag: str) -> bool:
    return tag.startswith(known) if known.endswith("_") else tag == known


def front_matter(card: Path) -> dict[str, object]:
    """The YAML at the head of a Hugging Face model card; empty if there is none that can be read."""
    try:
        _, head, _ = card.read_text(encoding="utf-8").split("---\n", 2)
        found = yaml.safe_load(head)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
