"""The typed configuration of one trial, and of the evaluation that measures it.

These models are the YAML keys under `trial:`, `evaluation:` and `final:`. They import no torch, so
that a sweep file can be validated in milliseconds.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trainables.data.names import NAMES, folder_name
from trainables.methods import METHODS, Method
from trainables.metrics.names import metric_names


def parse_fraction(value: Any) -> Any:
    """`8/255` as a number; anything that is not a fraction is left to pydantic."""
    if isinstance(value, str) and value.count("/") == 1:
        numerator, denominator = value.split("/")
        try:
            return float(numerator) / float(denominator)
        except (ValueError, ZeroDivisionError):
            return value
    return value


def as_fraction(value: float) -> str | float:
    """`n/255` where that is exactly the number, the number itself otherwise."""
    text = f"{round(value * 255, 6):g}/255"
    return text if parse_fraction(text) == value else value


Distance = Annotated[
    float,
    BeforeValidator(parse_fraction),
    PlainSerializer(as_fraction, when_used="json"),
    Field(ge=0),
]


class Settings(BaseModel):
    """Base of all configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Settings):
    """Which CLIP is fine-tuned."""

    name: str = Field(
        "clip-tiny",
        description="`clip-tiny`, an open_clip architecture, `hf-hub:ORG/REPO` or `local-dir:FOLDER`.",
    )
    pretrained: str | None = Field(
        None, description="open_clip weight tag of an architecture, e.g. `openai`."
    )

    @field_validator("name")
    @classmethod
    def absolute_folder(cls, name: str) -> str:
        schema, separator, folder = name.partition(":")
        if separator and schema == "local-dir":
            return f"local-dir:{Path(folder).expanduser().absolute()}"
        return name


class ImageFolder(Settings):
    """A data set of one's own: a folder with one sub-folder of images per class.

    With `train/` and `test/` (or `val/`) in it those are the splits; otherwise a fixed 20 % of the
    images is the test split.
    """

    image_folder: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
    name: str | None = Field(None, description="Name in tables; the folder's name by default.")


def known_set(name: str) -> str:
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"unknown data set {name!r}{hint} (known: {', '.join(NAMES)}; or image_folder: PATH)"
        )
    return name


def set_name(config: str | ImageFolder) -> str:
    """The name of a data set in tables and metrics."""
    if isinstance(config, str):
        return config
    return config.name or folder_name(config.image_folder)


DataSetConfig = Union[Annotated[str, AfterValidator(known_set)], ImageFolder]


class DataConfig(Settings):
    """What is trained on, and on which sets every epoch is evaluated."""

    train: DataSetConfig = Field("fashion-mnist-8k", description="Data set trained on.")
    evaluate: list[DataSetConfig] = Field(
        default_factory=list,
        description="Sets evaluated; the first is the in-distribution one, the others measure "
        "zero-shot transfer. Empty: the training set alone.",
    )
    images: PositiveInt | None = Field(None, description="Training images used; all by default.")
    prompt: str = Field("This is a photo of a {}", description="Template; {} or {c} is the class name.")
    augment: bool = Field(False, description="Random resized crop (0.9 to 1) and horizontal flip.")

    @field_validator("prompt")
    @classmethod
    def has_placeholder(cls, prompt: str) -> str:
        if prompt.count("{}") + prompt.count("{c}") != 1:
            raise ValueError("a prompt needs exactly one placeholder, {} or {c}")
        return prompt

    @model_validator(mode="after")
    def sets_have_own_names(self) -> DataConfig:
        names = [set_name(config) for config in self.evaluated]
        if len(set(names)) < len(names):
            raise ValueError(f"evaluate lists a name twice: {', '.join(names)}")
        return self

    @property
    def evaluated(self) -> list[DataSetConfig]:
        return self.evaluate or [self.train]


Norm = Literal["linf", "l2"]
NORMS = {"linf": "L-infinity", "l2": "L2"}


class AttackConfig(Settings):
    """PGD from a random start in the ball. Distances are in [0,1] pixels, written n/255."""

    norm: Norm = Field("linf", description="Norm of the ball: `linf`, or `l2` over all pixels of an image.")
    epsilon: Distance = Field(8 / 255, description="Radius of the ball.")
    steps: NonNegativeInt = Field(2, description="Gradient steps.")
    step_size: Distance | None = Field(
        None, description="Length of a step; min(epsilon, 2.5 epsilon / steps) by default."
    )
    momentum: float = Field(0, ge=0, lt=1, description="Of the steps' directions; FARE's attack has 0.9.")

    @field_validator("epsilon", "step_size")
    @classmethod
    def inside_the_pixels(cls, distance: float | None, info: ValidationInfo) -> float | None:
        if distance is not None and distance > 1 and info.data.get("norm") == "linf":
            raise ValueError(f"should be at most 1 in the norm linf, got {distance:g}; write n/255")
        return distance

    @property
    def step(self) -> float:
        if self.step_size is not None:
            return self.step_size
        return min(self.epsilon, 2.5 * self.epsilon / max(self.steps, 1))

    def __str__(self) -> str:
        return f"PGD-{self.steps}, {NORMS[self.norm]} epsilon {self.epsilon * 255:g}/255"


class OptimizerConfig(Settings):
    """Optimiser and learning-rate schedule: linear warm-up, then cosine to zero."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat = Field(1e-3, description="Peak learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only.")
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 0
    gradient_clip: PositiveFloat | None = Field(None, description="Largest gradient norm; none by default.")


class RuntimeConfig(Settings):
    """How the loop is executed. The result is the same but for rounding; what helps depends on the
    device: `python benchmarks/hot_loop.py --variants` measures it."""

    compile: bool = Field(False, description="torch.compile the image towers.")
    channels_last: bool = Field(False, description="Keep pixels in channels-last memory format.")
    fused_optimizer: bool = Field(False, description="Update all weights in one kernel.")


if TYPE_CHECKING:
    MethodConfig = Method
else:
    MethodConfig = Annotated[Union[tuple(METHODS.values())], Field(discriminator="name")]


class TrialConfig(Settings):
    """One trial: what is trained, on what, how."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    attack: AttackConfig = Field(AttackConfig(), description="The inner attack of training.")
    method: MethodConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    batch_size: int = Field(128, ge=2)
    epochs: PositiveInt = 3

    @model_validator(mode="after")
    def attack_fits_method(self) -> TrialConfig:
        self.method.check_attack(self.attack)
        return self


class EvaluationConfig(Settings):
    """How a model is measured. One ruler for all trials of a sweep, never searched."""

    attack: AttackConfig = AttackConfig(steps=10)
    images: PositiveInt | None = Field(None, description="Images of each set, stratified; all by default.")
    batch_size: PositiveInt = 256
    seed: NonNegativeInt = Field(0, description="Seed of the attack's random start.")


def trial_metrics(config: TrialConfig) -> list[str]:
    """Names of all metrics that a trial of this configuration reports."""
    return metric_names([set_name(evaluated) for evaluated in config.data.evaluated])
