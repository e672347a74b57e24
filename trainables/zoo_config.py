"""The typed configuration of a trial that is a model as it is. No torch here."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from trainables.config import EvaluationConfig, ModelConfig
from trainables.data.config import DataConfig
from trainables.embedded import MODELS
from trainables.settings import Settings
from trainables.sources import TIMM, random_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCES = (
    "openai",
    "laion400m",
    "laion aesthetic",
    "laion2b",
    "laion5b",
    "datacomp",
    "commonpool",
    "metaclip",
    "dfn",
    "webli",
    "merged2b",
    "mscoco",
    "cc12m",
    "yfcc15m",
    "redcaps",
    "nllb",
    "meta",
)
"""Training sources, as the tags of open_clip's weights name them."""
TIMM_SOURCES = {"in22k": "ImageNet-21k", "in21k": "ImageNet-21k", "in12k": "ImageNet-12k", "in1k": "ImageNet"}


class Source(Settings):
    """Stands where another trial's method does: what models are grouped by."""

    name: str = Field("", description="Training source; by default what the model's name or tag says.")


class ZooConfig(Settings):
    """One trial: which model, and on what it is measured."""

    model: ModelConfig = Field(ModelConfig(), description="Which CLIP, or `timm:NAME`.")
    data: DataConfig = Field(
        DataConfig(), description="On what it is measured; `train` is the in-distribution set by default."
    )
    method: Source = Field(Source(), description="Its training source.")
    epochs: Literal[1] = Field(1, description="A model is measured once.")

    @model_validator(mode="before")
    @classmethod
    def source_of_the_model(cls, value: Any) -> Any:
        if not isinstance(value, dict) or (value.get("method") or {}).get("name"):
            return value
        model = value.get("model") or {}
        if not isinstance(model, dict):
            return value
        return {**value, "method": {"name": source_of(model.get("name", ""), model.get("pretrained"))}}


def source_of(name: str, pretrained: str | None) -> str:
    """What a model was trained on, as far as its name says."""
    if random_seed(pretrained) is not None:
        return "random weights"
    if name in MODELS or not name:
        return "embedded"
    if name.startswith(TIMM):
        tag = name.partition(".")[2]
        found = [source for key, source in TIMM_SOURCES.items() if re.search(rf"(^|_){key}(_|$)", tag)]
        return found[0] if found else "timm"
    words = f"{pretrained or ''} {name}".lower().replace("-", "").replace("_", " ")
    return next((source for source in SOURCES if source in words), "other")


def check(trial: dict[str, Any], evaluations: Sequence[dict[str, Any]] = ()) -> None:
    """As `preflight.check`, where nothing is trained on. Weights are not looked for: of a zoo some may be
    gone from where they were, and then it is their trial that fails."""
    from trainables.sources import check_source

    config = ZooConfig.model_validate(trial)
    check_data(config.data.model_dump_json(), tuple(map(json.dumps, evaluations or [{}])))
    check_source(config.model.name, config.model.pretrained)


@lru_cache(maxsize=1)
def check_data(data: str, evaluations: tuple[str, ...]) -> None:
    """Once for all models of a sweep: to list ImageNet takes a while."""
    from trainables.preflight import check_evaluations

    rulers = [EvaluationConfig.model_validate_json(each) for each in evaluations]
    check_evaluations(DataConfig.model_validate_json(data), rulers)
