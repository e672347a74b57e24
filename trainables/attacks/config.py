"""The typed configuration of attacks: those of training, and those of an evaluation. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trainables.errors import did_you_mean
from trainables.settings import Settings

if TYPE_CHECKING:
    from trainables.config import EvaluationConfig


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
        hint = did_you_mean(name.lower(), OWN_ATTACKS)
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
