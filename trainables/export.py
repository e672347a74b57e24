"""A fine-tuned model as a folder that open_clip loads as `local-dir:FOLDER`.

    open_clip_config.json         architecture, as really used, and preprocessing
    open_clip_model.safetensors   all weights and buffers, float32
    tokenizer files               where the tokenizer is one of Hugging Face's
    sweep.json                    where the model comes from, its metrics, intervals and protocols
    README.md                     the same to be read: the model card

An architecture whose text tower is Hugging Face's own (`hf_model_name`) needs that model's configuration
from the hub once more when it is loaded; all others need nothing but the folder.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.pretrained import download_pretrained_from_hf
from safetensors.torch import save_file

from trainables.card import card, card_as_it_is
from trainables.classifiers import Measurable
from trainables.config import TrialConfig
from trainables.data import registry
from trainables.data.config import as_data_set
from trainables.errors import ModelError
from trainables.finetune import fine_tuned, training_set
from trainables.licences import hub_id, licence
from trainables.models import PixelClip, class_prompts
from trainables.sources import CONFIG, KNOWN_WEIGHTS, split_name
from trainables.zoo_config import ZooConfig

if TYPE_CHECKING:
    from trainables.config import ModelConfig

WEIGHTS, ORIGIN, CARD = KNOWN_WEIGHTS[0], "sweep.json", "README.md"
SERVING = Path(__file__).with_name("serving.py")
"""The code with which MLflow serves an exported folder."""


def export(*, trial: dict[str, Any], weights: str, target: str, about: dict[str, Any]) -> dict[str, Any]:
    """Writes the model with the weights that an epoch of a trial wrote to the folder `target`: whole, or not
    there at all. An earlier export in its place is replaced.

    about: what is known of the trial, see `sweeper.export.about`. Returns the content of sweep.json, which
    is `about` with the training set's class names and prompts, the licence and the base model.
    Raises ModelError if `target` holds something else, or if what open_clip loads from the folder gives
    features that differ in a single bit.
    """
    config = TrialConfig.model_validate(trial)
    check_target(Path(target))
    trained_on = training_set(Path(weights))
    known = {"training_set": trained_on, "classes": trained_on.pop("class_names")}
    origin = {**about, **known, "templates": trained_on["templates"], **of_weights(config.model)}
    write_whole(
        fine_tuned(config.model, Path(weights), "cpu"),
        config.model,
        Path(target),
        origin,
        card(config, origin),
    )
    return origin


def export_as_it_is(
    *,
    trial: dict[str, Any],
    weights: str,  # noqa: ARG001, as `export` has it
    target: str,
    about: dict[str, Any],
) -> dict[str, Any]:
    """As `export`, of a model that nothing was trained of; class names and prompts are those of the set that
    it was measured on. Raises ModelError for a classifier of timm."""
    config = ZooConfig.model_validate(trial)
    check_target(Path(target))
    own = as_data_set(config.data.evaluated[0])
    classes = list(registry.listed(own, "validation").classes)
    known = {"classes": classes, "templates": list(registry.templates_of(own, config.data.prompt))}
    origin = {**about, **known, **of_weights(config.model)}
    write_whole(
        fine_tuned(config.model, None, "cpu"),
        config.model,
        Path(target),
        origin,
        card_as_it_is(config, origin),
    )
    return origin


def check_target(folder: Path) -> None:
    """Raises ModelError if the folder holds something else than an earlier export."""
    if folder.exists() and not (folder / ORIGIN).is_file():
        raise ModelError(f"{folder} is there and is no earlier export (no {ORIGIN} in it); export elsewhere")


def of_weights(config: ModelConfig) -> dict[str, Any]:
    """Where a model's weights come from, and their licence."""
    base = licence(config)
    return {
        "base_model": {**config.model_dump(), "hub": hub_id(config)},
        "licence": {"identifier": base.identifier, "text": base.text},
    }


def write_whole(
    model: Measurable, config: ModelConfig, folder: Path, origin: dict[str, Any], text: str
) -> None:
    """The folder: whole, or not there at all. text: its card."""
    if not isinstance(model, PixelClip):
        raise ModelError(f"{config.name} is no CLIP, and no folder of open_clip can hold it")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write_model(model, config, partial)
        (partial / ORIGIN).write_text(json.dumps(origin, indent=1, allow_nan=False), encoding="utf-8")
        (partial / CARD).write_text(text, encoding="utf-8")
        check_identical(model, partial, class_prompts(origin["templates"][0], origin["classes"]))
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_model(model: PixelClip, config: ModelConfig, folder: Path) -> None:
    """Configuration, weights and tokenizer. The tokenizer is open_clip's own, or Hugging Face's."""
    settings = {
        "model_cfg": architecture(config),
        "preprocess_cfg": model.clip.visual.preprocess_cfg,
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=2), encoding="utf-8")
    weights = model.clip.state_dict()  # cloned: safetensors takes no tensors that share memory
    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, folder / WEIGHTS)
    if isinstance(model.tokenizer, open_clip.tokenizer.HFTokenizer):
        model.tokenizer.save_pretrained(folder)


def architecture(config: ModelConfig) -> dict[str, Any]:
    """open_clip's model configuration, with `quick_gelu` as the weights were trained: `ViT-B-32` with
    the tag `openai` is a QuickGELU model, though the architecture's own configuration does not say so."""
    schema, identifier = split_name(config.name)
    if schema == "local-dir":
        return read_architecture(Path(identifier) / CONFIG)
    if schema:
        return read_architecture(Path(download_pretrained_from_hf(identifier, filename=CONFIG)))
    found: dict[str, Any] = copy.deepcopy(open_clip.get_model_config(config.name))
    weights = open_clip.get_pretrained_cfg(config.name, config.pretrained or "")
    return found | ({"quick_gelu": True} if weights.get("quick_gelu") else {})


def read_architecture(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["model_cfg"]
    return found


@torch.no_grad()
def check_identical(model: PixelClip, folder: Path, prompts: list[str]) -> None:
    """Raises ModelError unless what open_clip loads from the folder gives the model's features, bit for
    bit: of a few fixed images, and of the prompts.

    model: on the CPU, in eval mode, no weight asking for a gradient. The loaded model is brought to the
    same state, as torch sums in another order where a weight has `requires_grad`, gradients or not.
    """
    source = f"local-dir:{folder}"
    loaded = PixelClip(open_clip.create_model(source), open_clip.get_tokenizer(source))
    loaded.eval().requires_grad_(False)
    pixels = torch.rand(4, 3, *model.image_size, generator=torch.Generator().manual_seed(0))
    own_text, other_text = (clip.text_features(clip.tokens(prompts)) for clip in (model, loaded))
    pairs = {
        "image features": (model.features(pixels), loaded.features(pixels)),
        "tokens": (model.tokens(prompts), loaded.tokens(prompts)),
        "text features": (own_text, other_text),
        "logit scale": (model.scale, loaded.scale),
    }
    different = [name for name, (own, other) in pairs.items() if not torch.equal(own, other)]
    if different:
        raise ModelError(
            f"what open_clip loads from {folder} differs in {', '.join(different)}; not exported"
        )
