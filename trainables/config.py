"""The typed configuration of one trial, and of the evaluation that measures it.

These models are the YAML keys under `trial:`, `evaluation:` and `final:`. They import no torch, so
that a sweep file can be validated in milliseconds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trainables.attacks.config import (
    STANDARD,
    AttackConfig,
    ConfidenceAttack,
    EvaluationAttack,
    FurtherAttack,
    as_fraction,
    within_pixels,
)
from trainables.data.config import DataConfig, DataSet, DataSetConfig, OutsideSet, as_data_set, set_name
from trainables.data.names import ZERO_SHOT
from trainables.data.role import IN_DISTRIBUTION, OOD, TRANSFER, TRANSFERRED, Role
from trainables.embedded import MODELS
from trainables.errors import DataError
from trainables.methods import METHODS, Method
from trainables.metrics.names import CONFIDENCE_VERSIONS, VERSIONS, metric_names
from trainables.settings import Settings
from trainables.sources import TIMM, random_seed
from trainables.suites import Suite


class ModelConfig(Settings):
    """Which CLIP is fine-tuned, and what of it."""

    name: str = Field(
        "clip-tiny",
        description="`clip-tiny`, an open_clip architecture, `hf-hub:ORG/REPO` or `local-dir:FOLDER`; to be "
        "measured alone, `timm:NAME`, a classifier of ImageNet.",
    )
    pretrained: str | None = Field(
        None,
        description="open_clip weight tag of an architecture, e.g. `openai`; `random` is random weights, the "
        "same in every process, to try a set-up at its full size without a download, and `random-7` others. "
        "Not for names of folders and repositories, which have weights of their own.",
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
        own = self.name.startswith(TIMM) or self.name in MODELS
        if own and random_seed(self.pretrained) is not None:
            return self
        if self.pretrained is not None and (self.name in MODELS or ":" in self.name):
            raise ValueError(
                f"{self.name} has weights of its own, so `pretrained: {self.pretrained}` would be ignored; "
                "leave it out, or name an open_clip architecture"
            )
        return self


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
    from trainables.zoo_config import ZooConfig

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
    def model_is_a_clip(self) -> TrialConfig:
        if self.model.name.startswith(TIMM):
            raise ValueError(f"{self.model.name} is no CLIP: it can be measured, not fine-tuned here")
        return self

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
    ood: list[OutsideSet] = Field(
        [],
        description="Sets whose images are of other classes: how well they are told from the in-distribution "
        "images, as `ood.mcm_ood_auroc`. They are not attacked.",
    )
    suites: list[Suite] = Field(
        [], description="Suites measured besides, by name, each a group of sets: `shifts.clean_ece`."
    )
    suite_epochs: list[PositiveInt] = Field(
        [],
        description="Epochs after which a trial is measured on `suites` and `ood`, its last one besides; all "
        "by default. If one of their metrics is an objective or has a bound, early stopping decides after "
        "these epochs, and only they can be on the front.",
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
    def attacks(self) -> bool:
        """Whether anything is attacked: an epsilon of 0 alone leaves all images as they are."""
        return self.attack.epsilon > 0 or bool(self.further_attacks) or self.confidence_attack is not None

    @property
    def versions(self) -> tuple[str, ...]:
        """Versions of the images that are measured, as metrics begin with them."""
        return VERSIONS + (CONFIDENCE_VERSIONS if self.confidence_attack else ())

    @property
    def without_suites(self) -> EvaluationConfig:
        return self.model_copy(update={"suites": [], "ood": []})

    @model_validator(mode="after")
    def suites_have_own_names(self) -> EvaluationConfig:
        names = [suite.name for suite in self.suites]
        if len({*names, TRANSFER}) <= len(names):
            raise ValueError(f"suites: a name is there twice, or is {TRANSFER!r}: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def attacks_confidence_for_a_suite(self) -> EvaluationConfig:
        wanted = [suite.confidence_attack for suite in self.suites if suite.confidence_attack]
        if wanted and self.confidence_attack is None:
            object.__setattr__(self, "confidence_attack", wanted[0])
        return self

    def __str__(self) -> str:
        """What a number measured this way is, but for its split."""
        low = "bfloat16, " if self.precision == "bfloat16" else ""
        others = len(self.further_sets) + len(self.ood)
        more = f" and of {others} further ones" if others else ""
        more += f" and of the suites {', '.join(suite.name for suite in self.suites)}" if self.suites else ""
        return (
            f"({self.images or 'all'} of each set{more}), {self._attacked}, "
            f"{low}ECE with 15 equal-width bins, attack seed {self.seed}"
        )

    @property
    def _attacked(self) -> str:
        if not self.attacks:
            return "clean alone"
        further = ", ".join(map(str, self.further_attacks))
        worst = f", robust accuracy in the worst case with {further}" if further else ""
        stress = self.confidence_attack
        pushed = f", confidence attack at epsilon {as_fraction(stress.epsilon)}" if stress else ""
        return f"{self.attack}{worst}{pushed}, {self.attack.size}"


class MeasurementConfig(Settings):
    """A model, the sets that it is measured on, and how."""

    model: ModelConfig
    data: DataConfig
    evaluation: EvaluationConfig = EvaluationConfig()


def final_evaluation(evaluation: dict[str, Any]) -> dict[str, Any]:
    """How candidates are measured before they are called optimal, where a sweep does not say: on all images,
    with the strong attack beside the search's, if that attacks at all."""
    own = EvaluationConfig.model_validate(evaluation)
    attacks = own.further_attacks
    if own.attacks and STANDARD not in [attack.name for attack in attacks]:
        attacks = [*attacks, FurtherAttack(name=STANDARD)]
    return own.model_copy(update={"images": None, "further_attacks": attacks}).model_dump(mode="json")


def describe_evaluation(evaluation: dict[str, Any]) -> str:
    """`str` of an evaluation's configuration."""
    return str(EvaluationConfig.model_validate(evaluation))


def trial_metrics(config: TrialConfig | ZooConfig, evaluation: EvaluationConfig) -> list[str]:
    """Names of all metrics that a trial of this configuration always reports."""
    measured = measured_sets(config.data, evaluation)
    return metric_names({name: role for name, (_, role) in measured.items()}, evaluation.versions)


def trial_metrics_at_times(
    config: TrialConfig | ZooConfig, evaluation: EvaluationConfig
) -> tuple[list[str], list[int]]:
    """Names of those of a trial's metrics that it reports after these epochs and its last one alone."""
    if not evaluation.suite_epochs:
        return [], []
    always = trial_metrics(config, evaluation.without_suites)
    return [n for n in trial_metrics(config, evaluation) if n not in always], evaluation.suite_epochs


def measured_sets(data: DataConfig, evaluation: EvaluationConfig) -> dict[str, tuple[str | DataSet, Role]]:
    """The sets that an evaluation measures, by name, the in-distribution one first, and what for: as
    `data.evaluate` asks for a set, if others do too. Raises DataError if other images have the same name, or
    a set that of a group."""
    first, *others = data.evaluated
    asked = [(first, IN_DISTRIBUTION)]
    asked += [(each, TRANSFERRED) for each in (*others, *evaluation.further_sets)]
    asked += [(each, Role((OOD,), attacked=False, outside=True)) for each in evaluation.ood]
    asked += [each for suite in evaluation.suites for each in suite.measured(first)]
    found: dict[str, tuple[str | DataSet, Role]] = {}
    for config, role in asked:
        name = set_name(config)
        known, known_role = found.setdefault(name, (config, role))
        if as_data_set(config).images != as_data_set(known).images or role.outside != known_role.outside:
            raise DataError(
                f"{as_data_set(config).images} and {as_data_set(known).images} are both called {name!r}; "
                "give one a `name`"
            )
        if name != set_name(first):
            found[name] = known, known_role.and_also(role)
    groups = {group for _, role in found.values() for group in role.groups}
    if clash := groups & found.keys():
        raise DataError(f"a data set and a group of them are both called {clash.pop()!r}; give one a `name`")
    if evaluation.attacks:
        return found
    return {name: (config, replace(role, attacked=False)) for name, (config, role) in found.items()}
