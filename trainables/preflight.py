"""Are the data, weights and attacks of a trial there? Answered before anything starts, and without torch
where neither has to be looked for in open_clip's tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainables.config import EvaluationConfig, TrialConfig, measured_sets
from trainables.data import registry
from trainables.data.config import set_name
from trainables.embedded import MODELS
from trainables.errors import AttackError, ModelError


def check(trial: dict[str, Any], evaluations: Sequence[dict[str, Any]] = ()) -> None:
    """Raises ModelError, DataError or AttackError, one line each, if data, weights or attacks of a trial
    and its evaluations are missing."""
    config = TrialConfig.model_validate(trial)
    rulers = [EvaluationConfig.model_validate(evaluation) for evaluation in evaluations or [{}]]
    for ruler in rulers:
        check_attacks(ruler)
    registry.check(config.data.train, ("train",))
    measured = {set_name(data): data for ruler in rulers for data in measured_sets(config.data, ruler)}
    for data in measured.values():
        registry.check(data, ("validation", "test"))
    check_model(config.model.name, config.model.pretrained)


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


def check_model(name: str, pretrained: str | None) -> None:
    """Raises ModelError unless the model's weights are on this machine or can be downloaded now."""
    schema, separator, folder = name.partition(":")
    if name in MODELS or (separator and schema == "hf-hub"):
        return
    if separator and schema == "local-dir":
        if not (Path(folder) / "open_clip_config.json").is_file():
            raise ModelError(
                f"{folder} is not an exported open_clip model: expected open_clip_config.json in it"
            )
        return
    check_weights(name, pretrained)


def check_weights(name: str, pretrained: str | None) -> None:
    """As `check_model`, for an open_clip architecture and weight tag."""
    import open_clip

    if open_clip.get_model_config(name) is None:
        raise ModelError(f"open_clip knows no architecture {name!r}; `open_clip.list_models()` lists them")
    if pretrained is None:
        raise ModelError(f"{name} needs `pretrained`, a weight tag such as openai")
    config = open_clip.get_pretrained_cfg(name, pretrained)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise ModelError(f"open_clip has no weights {pretrained!r} of {name}; it has {tags}")
    try:
        open_clip.download_pretrained(config)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(
            f"the weights {pretrained!r} of {name} are not on this machine and can't be downloaded "
            f"({type(error).__name__}: {reason}); fetch them where there is a network, or give "
            "an exported folder as `name: local-dir:FOLDER`"
        ) from error
