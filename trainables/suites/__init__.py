"""Suites: what a model is measured on for one question, by name. Each is a small file beside this one.

No torch here: sweep files are checked against these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from trainables.alterations.names import CORRUPTIONS, FACTORS
from trainables.attacks.config import ConfidenceAttack, Distance, as_fraction
from trainables.data.config import Altered, DataSet, DataSetConfig, OutsideSet, Severity, as_data_set
from trainables.data.role import Role
from trainables.errors import DataError, did_you_mean
from trainables.settings import Settings

HERE = Path(__file__).parent
NAMES = tuple(sorted(file.stem for file in HERE.glob("*.yaml")))
KINDS = {"corruptions": CORRUPTIONS, "factors": FACTORS}


def by_kind(value: Any) -> Any:
    return list(KINDS[value]) if isinstance(value, str) and value in KINDS else value


class Suite(Settings):
    """Sets that are measured for one question. Their metrics are averaged as `<name>.<metric>`, and
    `<name>.worst_<metric>` is the worst of them."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="In front of its metrics.")
    about: str = Field("", description="The question.")
    within: DataSetConfig | None = Field(
        None, description="The in-distribution set, for a model that was trained on none of ours."
    )
    sets: list[DataSetConfig] = Field([], description="Sets that are classified, each by its own classes.")
    ood: list[OutsideSet] = Field(
        [], description="Sets that are told from the in-distribution set, and by its classes."
    )
    altered: Annotated[list[Altered], BeforeValidator(by_kind)] = Field(
        [],
        description="Alterations, each a set of the in-distribution images; `corruptions` or `factors`: all.",
    )
    severities: list[Severity] = Field([3], description="Of each of `altered`.")
    attacked: bool = Field(False, description="Whether the sets are attacked, too, or measured clean alone.")
    epsilons: list[Distance] = Field(
        [],
        description="Of `sweeper evaluate`: everything is measured at each, in place of the attack's own. A "
        "sweep attacks at one epsilon.",
    )
    confidence_attack: ConfidenceAttack | None = Field(
        None, description="That of the evaluation, if that has none."
    )
    show: list[str] = Field([], description="Metrics that tables show of each set; all of a kind by default.")

    @model_validator(mode="before")
    @classmethod
    def by_name_alone(cls, value: Any) -> Any:
        return read(value) if isinstance(value, str) else value

    @property
    def attacks(self) -> bool:
        return self.attacked or self.confidence_attack is not None

    def measured(self, inside: str | DataSet) -> Iterator[tuple[str | DataSet, Role]]:
        """Its sets, and what for. inside: the in-distribution set."""
        classified = Role((self.name,), attacked=self.attacked)
        for each in self.sets:
            yield each, classified
        for name in self.altered:
            for severity in self.severities:
                altered = {"altered": name, "severity": severity}
                yield as_data_set(inside).model_copy(update={**altered, "name": None}), classified
        for each in self.ood:
            yield each, Role((self.name,), attacked=False, outside=True)


def read(name: str) -> dict[str, Any]:
    """A suite of ours, as its file has it. Raises ValueError for another name."""
    if name not in NAMES:
        hint = did_you_mean(name, NAMES)
        raise ValueError(
            f"unknown suite {name!r}{hint} (known: {', '.join(NAMES)}; or one of your own, as a map)"
        )
    return {"name": name, **yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))}


def measurements(suites: Sequence[Any]) -> list[dict[str, Any]]:
    """What of an evaluation has to be set to measure these suites, as few evaluations as can be: one at each
    epsilon that some of them name, one as it is for others that attack, and one without any attack.

    suites: names, or suites of one's own.  Raises DataError for what is none.
    """
    alone: list[Suite] = []
    as_it_is: list[Suite] = []
    at: dict[float, list[Suite]] = {}
    for suite in map(validated, suites):
        for epsilon in suite.epsilons:
            at.setdefault(epsilon, []).append(suite)
        if not suite.epsilons:
            (as_it_is if suite.attacks else alone).append(suite)
    plans: list[tuple[list[Suite], dict[str, Any]]] = [
        (alone, {"attack.epsilon": 0, "further_attacks": []}),
        (as_it_is, {}),
        *((own, {"attack.epsilon": as_fraction(epsilon)}) for epsilon, own in sorted(at.items())),
    ]
    return [
        {"suites": [suite.model_dump(mode="json", exclude_defaults=True) for suite in own], **settings}
        for own, settings in plans
        if own
    ]


def validated(suite: Any) -> Suite:
    try:
        return Suite.model_validate(suite)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f"suite{f': {key}' if key else ''}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
