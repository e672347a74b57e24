"""Where a model's weights come from: an embedded or exported folder, the hub, open_clip's tables, a seed.

open_clip gives random weights, and no more than a line in a log, where a folder or a repository holds
none, and takes `pretrained` for a file's path where it is no tag. Here all of that is a ModelError.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.embedded import MODELS
from trainables.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = "random"
"""`pretrained` of an architecture whose weights are drawn from a fixed seed; `random-7` is another seed."""

TIMM = "timm:"
"""What the names of timm's classifiers begin with."""

CONFIG = "open_clip_config.json"
KNOWN_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Names that open_clip prefers over any others in a folder."""


def random_seed(pretrained: str | None) -> int | None:
    """Of random weights; None for others."""
    found = re.fullmatch(rf"{RANDOM}(?:-(\d+))?", pretrained or "")
    return int(found[1] or 0) if found else None


def open_clip_name(name: str) -> str:
    """The name by which open_clip knows a model."""
    return f"local-dir:{MODELS[name]}" if name in MODELS else name


def split_name(name: str) -> tuple[str, str]:
    """`hf-hub` or `local-dir` and what it is of; an empty schema and the name for an architecture."""
    schema, separator, rest = open_clip_name(name).partition(":")
    return (schema, rest) if separator else ("", name)


def check_model(name: str, pretrained: str | None) -> None:
    """Raises ModelError unless the model's weights are on this machine or can be downloaded now."""
    check_source(name, pretrained)
    if random_seed(pretrained) is not None:
        return
    schema, rest = split_name(name)
    if schema == "timm":
        obtain(f"weights of timm's {rest}", lambda: download_classifier(rest))
    elif schema == "hf-hub":
        obtain(f"configuration and weights of {rest}", lambda: download_repository(rest))
    elif not schema:
        obtain(f"weights {pretrained!r} of {name}", lambda: download_tag(name, pretrained))


def check_source(name: str, pretrained: str | None) -> None:
    """Raises ModelError if it can be told without a network that there is no such model."""
    schema, rest = split_name(name)
    if not schema:
        check_architecture(name, pretrained)
    elif schema == "local-dir":
        check_folder(Path(rest))
    elif schema == "timm":
        check_classifier(rest)
    elif schema != "hf-hub":
        raise ModelError(
            f"{name}: `{schema}:` is not known; models are hf-hub:ORG/REPO, local-dir:FOLDER, or timm:NAME"
        )


def check_classifier(name: str) -> None:
    """As `check_source`, for a classifier of timm."""
    import timm

    if not timm.is_model(name):
        raise ModelError(f"timm knows no model {name!r}; `timm.list_models()` lists them")


def check_architecture(name: str, pretrained: str | None) -> None:
    """As `check_source`, for an open_clip architecture and weight tag."""
    import open_clip

    if open_clip.get_model_config(name) is None:
        raise ModelError(f"open_clip knows no architecture {name!r}; `open_clip.list_models()` lists them")
    if pretrained is None:
        raise ModelError(f"{name} needs `pretrained`, a weight tag such as openai, or `random`")
    if random_seed(pretrained) is not None or open_clip.get_pretrained_cfg(name, pretrained):
        return
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    hint = "; a file of weights goes into an exported folder: `name: local-dir:FOLDER`"
    raise ModelError(
        f"open_clip has no weights {pretrained!r} of {name}; it has {tags}"
        + (hint if Path(pretrained).suffix else "")
    )


def check_folder(folder: Path) -> None:
    """As `check_source`, for an exported folder: its configuration, and one file of weights."""
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} is not an exported open_clip model: expected {CONFIG} in it")
    try:
        complete = "model_cfg" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / CONFIG} can't be read: {error}") from error
    if not complete:
        raise ModelError(f"{folder / CONFIG} has no `model_cfg`, which says what the model is")
    weights = sorted(f.name for end in ("safetensors", "bin", "pth") for f in folder.glob(f"*.{end}"))
    if not weights:
        raise ModelError(f"{folder} holds no weights: expected {KNOWN_WEIGHTS[0]} beside {CONFIG}")
    if len(weights) > 1 and not set(weights) & set(KNOWN_WEIGHTS):
        raise ModelError(
            f"{folder} holds several files of weights ({', '.join(weights)}); name the one that is meant "
            f"{KNOWN_WEIGHTS[0]}, or leave only that"
        )


def download_tag(name: str, pretrained: str | None) -> None:
    import open_clip

    open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, pretrained))


def download_classifier(name: str) -> None:
    import timm

    timm.create_model(name, pretrained=True)


def download_repository(repository: str) -> None:
    from open_clip.pretrained import download_pretrained_from_hf

    download_pretrained_from_hf(repository, filename=CONFIG)
    download_pretrained_from_hf(repository)


def obtain(what: str, download: Callable[[], None]) -> None:
    """Raises ModelError, in one line, if the download fails."""
    try:
        download()
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(
            f"the {what} are not on this machine and can't be downloaded ({type(error).__name__}: {reason}); "
            "fetch them where there is a network, or give an exported folder as `name: local-dir:FOLDER`"
        ) from error
