"""The typed configuration of one trial, and of the evaluation that measures it.

These models are the YAML keys under `trial:`, `evaluation:` and `final:`. They import no torch, so
that a sweep file can be validated in milliseconds.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import (
    BeforeValidator,
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

from trainables.data.config import DataConfig, DataSet, DataSetConfig, as_data_set, set_name
from trainables.data.names import ZERO_SHOT
from trainables.embedded import MODELS
from trainables.errors import DataError
from trainables.methods import METHODS, Method
from trainables.metrics.names import CONFIDENCE_VERSIONS, VERSIONS, metric_names
from trainables.settings import Settings


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
    """`n/255` where that is exactly the number and at most 1, the number itself otherwise."""
    text = f"{round(value * 255, 6):g}/255"
    return text if value <= 1 and parse_fraction(text) == value else value


Distance = Annotated[
    float,
    BeforeValidator(parse_fraction),
    PlainSerializer(as_fraction, when_used="json"),
    Field(ge=0),
]


class ModelConfig(Settings):
    """Which CLIP is fine-tuned, and what of it."""

    name: str = Field(
        "clip-tiny",
        description="`clip-tiny`, an open_clip architecture, `hf-hub:ORG/REPO` or `local-dir:FOLDER`.",
    )
    pretrained: str | None = Field(
        None,
        description="open_clip weight tag of an architecture, e.g. `openai`; `random` is random weights, the "
        "same in every process, to try a set-up at its full size without a download. Not for other names, "
        "which have weights of their own.",
    )
    towers: Literal["image", "both"] | None = Field(
        None,
        description="What is trained: the image tower, or both and the logit scale; by default what the "
        "method's publication trains.",
    )
    blocks: PositiveInt | None = Field(
        None,
        description="Train only the last so many transformer blocks of each trained tower and what follows "
        "them, with both towers the logit scale too; all by default.",
    )

    @field_validator("name")
    @classmethod
    def absolute_folder(cls, name: str) -> str:
        schema, separator, folder = name.partition(":")
        if separator and schema == "local-dir":
            return f"local-dir:{Path(folder).expanduser().absolute()}"
        return name

    @model_validator(mode="after")
    def weights_are_of_an_architecture(self) -> ModelConfig:
        if self.pretrained is not None and (self.name in MODELS or ":" in self.name):
            raise ValueError(
                f"{self.name} has weights of its own, so `pretrained: {self.pretrained}` would be ignored; "
                "leave it out, or name an open_clip architecture"
            )
        return self


Norm = Literal["linf", "l2"]
AttackedAt = Literal["native", "model"]


def within_pixels(distance: float, norm: str | None) -> float:
    """The distance, if it is none that is larger than every difference of pixels."""
    if distance > 1 and norm == "linf":
        raise ValueError(f"should be at most 1 in the norm linf, got {distance:g}; write n/255")
    return distance


class Ball(Settings):
    """What an attack keeps to. Distances are in [0,1] pixels, written n/255."""

    norm: Norm = Field("linf", description="Norm of the ball: `linf`, or `l2` over all pixels of an image.")
    epsilon: Distance = Field(8 / 255, description="Radius of the ball.")

    @field_validator("epsilon")
    @classmethod
    def inside_the_pixels(cls, distance: float, info: ValidationInfo) -> float:
        return within_pixels(distance, info.data.get("norm"))


class AttackConfig(Ball):
    """PGD from a random start in the ball."""

    steps: NonNegativeInt = Field(2, description="Gradient steps.")
    step_size: Distance | None = Field(
        None, description="Length of a step; min(epsilon, 2.5 epsilon / steps) by default."
    )
    momentum: float = Field(0, ge=0, lt=1, description="Of the steps' directions; FARE's attack has 0.9.")
    at: AttackedAt = Field(
        "native",
        description="Size at which pixels are changed: the data set's own, or the model's input size, to "
        "which images are then resized before. Different threat models. Images of varying sizes: the latter.",
    )

    @field_validator("step_size")
    @classmethod
    def step_inside_the_pixels(cls, distance: float | None, info: ValidationInfo) -> float | None:
        return None if distance is None else within_pixels(distance, info.data.get("norm"))

    @property
    def step(self) -> float:
        if self.step_size is not None:
            return self.step_size
        return min(self.epsilon, 2.5 * self.epsilon / max(self.steps, 1))


class OptimizerConfig(Settings):
    """Optimiser and learning-rate schedule: linear warm-up, then cosine to zero."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="torch.optim's SGD or AdamW.")
    learning_rate: PositiveFloat = Field(1e-3, description="Peak learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only.")
    weight_decay: NonNegativeFloat = Field(0.0, description="Of all parameters that are trained.")
    warmup_steps: NonNegativeInt = Field(
        0, description="Steps in which the learning rate rises from zero to its peak."
    )
    gradient_clip: PositiveFloat | None = Field(None, description="Largest gradient norm; none by default.")


class RuntimeConfig(Settings):
    """How the loop is executed. The result is the same but for rounding; what helps depends on the
    device: `python -m benchmarks.hot_loop --variants` measures it."""

    compile: bool = Field(False, description="torch.compile the image towers.")
    channels_last: bool = Field(False, description="Keep pixels in channels-last memory format.")
    fused_optimizer: bool = Field(False, description="Update all weights in one kernel.")
    micro_batch: PositiveInt | None = Field(
        None,
        description="Images whose gradients are computed at a time; they are summed up to the batch's. By "
        "default the whole batch, or what fits the trial's share of the memory.",
    )


if TYPE_CHECKING:
    MethodConfig = Method
else:
    MethodConfig = Annotated[Union[tuple(METHODS.values())], Field(discriminator="name")]


class TrialConfig(Settings):
    """One trial: what is trained, on what, how."""

    model: ModelConfig = Field(ModelConfig(), description="Which CLIP, and what of it is trained.")
    data: DataConfig = Field(DataConfig(), description="What is trained on, and what is evaluated on.")
    attack: AttackConfig = Field(AttackConfig(), description="The inner attack of training.")
    method: MethodConfig = Field(description="The objective; its `name` says which other keys it has.")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="Optimiser and learning rate.")
    runtime: RuntimeConfig = Field(RuntimeConfig(), description="How the loop is executed.")
    batch_size: int = Field(128, ge=2, description="Images of a step.")
    epochs: PositiveInt = Field(3, description="Passes over the training images.")

    @model_validator(mode="after")
    def attack_fits_method(self) -> TrialConfig:
        self.method.check_attack(self.attack)
        return self

    @model_validator(mode="after")
    def text_is_in_the_loss(self) -> TrialConfig:
        if self.model.towers == "both" and not self.method.needs_text:
            raise ValueError(f"{self.method.name}'s loss is of images alone: `towers: both` has no effect")
        return self

    @property
    def trains_text(self) -> bool:
        """Whether both towers and the logit scale are trained, or the image tower alone."""
        return self.method.trains_text if self.model.towers is None else self.model.towers == "both"


class EvaluationAttack(AttackConfig):
    """The attack that all `robust_` metrics are of: fixed steps on every image, its strongest point."""

    steps: NonNegativeInt = Field(10, description="Gradient steps.")
    loss: Literal["cross_entropy", "margin"] = Field(
        "cross_entropy", description="What it ascends; `margin` is the loss of Carlini and Wagner."
    )

    @property
    def size(self) -> str:
        return "pixels of native size" if self.at == "native" else "pixels of the model's input size"

    def __str__(self) -> str:
        ball = "" if self.norm == "linf" else "L2 "
        name = "PGD" if self.loss == "cross_entropy" else "margin-PGD"
        return f"{name}-{self.steps} at {ball}epsilon {as_fraction(self.epsilon)}"


STANDARD = "standard"
OWN_ATTACKS = (STANDARD, "apgd-ce", "apgd-t", "margin-pgd")
EXTERNAL = "torchattacks."


class FurtherAttack(Settings):
    """One more attack that `robust_accuracy` has to withstand, on the images not broken before it."""

    name: str = Field(description="standard, apgd-ce, apgd-t, margin-pgd, or torchattacks.NAME.")
    norm: Norm | None = Field(None, description="That of `attack` by default.")
    epsilon: Distance | None = Field(None, description="That of `attack` by default.")
    steps: PositiveInt | None = Field(None, description="100 by default; not for torchattacks.")
    restarts: PositiveInt = Field(1, description="Of the APGD attacks.")
    settings: dict[str, Any] = Field(
        {}, description="Arguments of a torchattacks attack; n/255 is read as a number."
    )

    @model_validator(mode="before")
    @classmethod
    def by_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def is_known(cls, name: str) -> str:
        if name in OWN_ATTACKS or (name.startswith(EXTERNAL) and name != EXTERNAL):
            return name
        close = difflib.get_close_matches(name.lower(), OWN_ATTACKS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown attack {name!r}{hint} (known: {', '.join(OWN_ATTACKS)}, {EXTERNAL}NAME)")

    @model_validator(mode="after")
    def settings_have_an_effect(self) -> FurtherAttack:
        if self.external and (self.steps or self.restarts > 1):
            raise ValueError(f"{self.name} takes steps and restarts under `settings`, by torchattacks' names")
        if not self.external and self.settings:
            raise ValueError(f"{self.name} has no `settings`; they are for {EXTERNAL}NAME")
        if self.name == "margin-pgd" and self.restarts > 1:
            raise ValueError("margin-pgd has no restarts")
        if {"eps", "norm"} & set(self.settings):
            raise ValueError(f"write `epsilon` and `norm` beside {self.name}, not under `settings`")
        return self

    @property
    def external(self) -> str:
        """The attack's name in torchattacks; empty if it is one of our own."""
        return self.name.removeprefix(EXTERNAL) if self.name.startswith(EXTERNAL) else ""

    def radius(self, config: EvaluationConfig) -> float:
        return config.attack.epsilon if self.epsilon is None else self.epsilon

    def ball(self, config: EvaluationConfig) -> Norm:
        return self.norm or config.attack.norm

    @property
    def cost(self) -> int:
        """Roughly how long it takes, in steps: the targeted attack aims at up to nine classes."""
        targets = {"standard": 10, "apgd-t": 9}.get(self.name, 1)
        return targets * self.restarts * (self.steps or 100)

    def arguments(self, config: EvaluationConfig) -> dict[str, Any]:
        """Settings of a torchattacks attack, with radius and norm where it has them."""
        from trainables.attacks.external import parameters

        own = {"eps": self.radius(config), "norm": "Linf" if self.ball(config) == "linf" else "L2"}
        given = {name: parse_fraction(value) for name, value in self.settings.items()}
        return {name: value for name, value in own.items() if name in parameters(self.external)} | given

    def __str__(self) -> str:
        settings = [f"{name} {value}" for name, value in self.settings.items()]
        settings += [f"{self.steps or 100} steps"] if not self.external else []
        settings += [f"epsilon {as_fraction(self.epsilon)}"] if self.epsilon is not None else []
        return f"{self.name} ({', '.join(settings)})" if settings else self.name


class ConfidenceAttack(Ball):
    """Pushes the confidence up, and down, without changing the predicted class: calibration's stress
    test. Metrics of its images begin with `confidence_up_` and `confidence_down_`."""

    steps: PositiveInt = Field(20, description="Gradient steps.")


def by_suite(value: Any) -> Any:
    return list(ZERO_SHOT) if value == "zero-shot" else value


class EvaluationConfig(Settings):
    """How a model is measured. One ruler for all trials of a sweep, never searched."""

    attack: EvaluationAttack = Field(
        EvaluationAttack(), description="The attack that all `robust_` metrics are of."
    )
    further_attacks: list[FurtherAttack] = Field(
        [], description="`robust_accuracy` is the worst case over these too: [standard, torchattacks.Square]."
    )
    confidence_attack: ConfidenceAttack | None = Field(None, description="None by default.")
    further_sets: Annotated[list[DataSetConfig], BeforeValidator(by_suite)] = Field(
        [],
        description="Sets measured beside those of `trial.data.evaluate`, as zero-shot transfer; `zero-shot` "
        "is the sixteen of the publications.",
    )
    images: PositiveInt | None = Field(None, description="Images of each set, stratified; all by default.")
    batch_size: PositiveInt = Field(256, description="Images measured at a time; no result depends on it.")
    seed: NonNegativeInt = Field(0, description="Seed of the attacks' random starts.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of evaluation, on any device. Training is in bfloat16 on CUDA."
    )

    @field_validator("further_attacks")
    @classmethod
    def have_a_ball(cls, attacks: list[FurtherAttack], info: ValidationInfo) -> list[FurtherAttack]:
        own: EvaluationAttack = info.data.get("attack", EvaluationAttack())
        for attack in attacks:
            norm = attack.norm or own.norm
            if norm == "linf" and attack.external.endswith("L2"):
                raise ValueError(f"{attack.name} attacks in l2: give it `norm: l2` and an `epsilon`")
            if norm != own.norm and attack.epsilon is None:
                raise ValueError(f"{attack.name} has a norm of its own: give it an `epsilon`, too")
            within_pixels(attack.epsilon or 0, norm)
        return attacks

    @property
    def versions(self) -> tuple[str, ...]:
        """Versions of the images that are measured, as metrics begin with them."""
        return VERSIONS + (CONFIDENCE_VERSIONS if self.confidence_attack else ())

    def __str__(self) -> str:
        """What a number measured this way is, but for its split."""
        further = ", ".join(map(str, self.further_attacks))
        worst = f", robust accuracy in the worst case with {further}" if further else ""
        stress = self.confidence_attack
        low = "bfloat16, " if self.precision == "bfloat16" else ""
        pushed = f", confidence attack at epsilon {as_fraction(stress.epsilon)}" if stress else ""
        more = f" and of {len(self.further_sets)} further ones" if self.further_sets else ""
        return (
            f"({self.images or 'all'} of each set{more}), {self.attack}{worst}{pushed}, {self.attack.size}, "
            f"{low}ECE with 15 equal-width bins, attack seed {self.seed}"
        )


class MeasurementConfig(Settings):
    """A model, the sets that it is measured on, and how."""

    model: ModelConfig
    data: DataConfig
    evaluation: EvaluationConfig = EvaluationConfig()


def final_evaluation(evaluation: dict[str, Any]) -> dict[str, Any]:
    """How candidates are measured before they are called optimal, where a sweep does not say: on all images,
    with the strong attack beside the search's."""
    own = EvaluationConfig.model_validate(evaluation)
    attacks = own.further_attacks
    if STANDARD not in [attack.name for attack in attacks]:
        attacks = [*attacks, FurtherAttack(name=STANDARD)]
    return own.model_copy(update={"images": None, "further_attacks": attacks}).model_dump(mode="json")


def describe_evaluation(evaluation: dict[str, Any]) -> str:
    """`str` of an evaluation's configuration."""
    return str(EvaluationConfig.model_validate(evaluation))


def trial_metrics(config: TrialConfig, evaluation: EvaluationConfig) -> list[str]:
    """Names of all metrics that a trial of this configuration always reports."""
    return metric_names(
        [set_name(data) for data in measured_sets(config.data, evaluation)], evaluation.versions
    )


def measured_sets(data: DataConfig, evaluation: EvaluationConfig) -> list[str | DataSet]:
    """The sets that an evaluation measures, the in-distribution one first, each once: as `data.evaluate`
    asks for it, if both do. Raises DataError if other images have the same name."""
    by_name: dict[str, str | DataSet] = {}
    for config in (*data.evaluated, *evaluation.further_sets):
        name = set_name(config)
        images, known = (as_data_set(each).images for each in (config, by_name.setdefault(name, config)))
        if images != known:
            raise DataError(f"further_sets: {images} and {known} are both called {name!r}; give one a `name`")
    return list(by_name.values())
