"""Are the data, weights and attacks of a trial there? Answered before anything starts, and without torch
where neither has to be looked for in open_clip's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.config import (
    EvaluationConfig,
    MeasurementConfig,
    ModelConfig,
    TrialConfig,
    measured_sets,
)
from trainables.data import registry
from trainables.data.config import DataConfig
from trainables.errors import AttackError
from trainables.sources import check_model


def check(trial: dict[str, Any], evaluations: Sequence[dict[str, Any]] = ()) -> None:
    """Raises ModelError, DataError or AttackError, one line each, if data, weights or attacks of a trial
    and its evaluations are missing."""
    config = TrialConfig.model_validate(trial)
    registry.check(config.data.train, ("train",))
    rulers = [EvaluationConfig.model_validate(each) for each in evaluations or [{}]]
    check_needs(config.model, config.data, rulers)
    check_blocks(config)


def check_measurement(measurement: dict[str, Any]) -> None:
    """As `check`, for a model that is measured by itself."""
    config = MeasurementConfig.model_validate(measurement)
    check_needs(config.model, config.data, [config.evaluation])


def check_needs(model: ModelConfig, data: DataConfig, evaluations: Sequence[EvaluationConfig]) -> None:
    check_evaluations(data, evaluations)
    check_model(model.name, model.pretrained)


def check_evaluations(data: DataConfig, evaluations: Sequence[EvaluationConfig]) -> None:
    for evaluation in evaluations:
        check_attacks(evaluation)
        for each, _ in measured_sets(data, evaluation).values():
            registry.check(each, ("validation", "test"))


def check_attacks(evaluation: EvaluationConfig) -> None:
    """Raises AttackError unless torchattacks has the attacks named, and they the settings given."""
    for attack in evaluation.further_attacks:
        if not attack.external:
            continue
        from trainables.attacks.external import check_settings

        try:
            check_settings(attack.external, attack.settings)
        except (ImportError, AttackError) as error:
            raise AttackError(f"further_attacks: {error}") from error


def check_blocks(config: TrialConfig) -> None:
    """Raises ModelError unless the model has the transformer blocks of which the last are to be trained."""
    if config.model.blocks is None:
        return
    from trainables import models

    whole = models.blueprint(config.model.name)
    models.trainable_copy(whole, text=config.trains_text, blocks=config.model.blocks)
