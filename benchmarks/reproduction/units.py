"""What is trained and measured: a configuration with a seed is a unit, in a folder of its own.

Settings are those of search_spaces/published/, where each file stands for the embedded model and images; all
that is added here are the seeds and the strong attack. Through `Finetune`, as a trial is, but without Ray: a
sweep would have to be one per file, and gives neither the record of each epoch of each seed nor `standard` on
models that are not on its front.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sweeper import spec

PUBLISHED = Path(spec.__file__).parent / "search_spaces" / "published"
SEEDS = 5
STANDARD = {"further_attacks": [{"name": "standard", "steps": 20}], "images": 150}
"""In the place of what the files say of an evaluation: 200 steps for an image that withstands it."""


@dataclass(frozen=True)
class Configuration:
    """A row of the table. file, profile: in search_spaces/published."""

    name: str
    file: str
    profile: str | None = None
    trained: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """`trial` and `evaluation`, as its file has them."""
        return settings_of(self.file, self.profile)

    @property
    def seeds(self) -> int:
        """Of the untrained model only one: nothing of it is drawn."""
        return SEEDS if self.trained else 1


@cache
def settings_of(file: str, profile: str | None) -> dict[str, Any]:
    sweep = spec.load(PUBLISHED / f"{file}.yaml", profile)
    return {"trial": sweep.base_trial(), "evaluation": sweep.file.evaluation}


UNTRAINED = Configuration("untrained", "tecoa", trained=False)
TECOA = Configuration("TeCoA", "tecoa")
PMG = Configuration("PMG-AFT", "pmg")
CAROT = Configuration("CaRot", "carot")
FARE = Configuration("FARE", "fare")
TGA = Configuration("TGA-ZSR", "tga")
AGFT = Configuration("AGFT", "agft")
DIRICHLET = Configuration("Dirichlet, as published", "dirichlet")
MODERATE = Configuration("Dirichlet, κ 14.3", "dirichlet", "moderate")
SHAPE = Configuration("Dirichlet, κ 14.3, shape only", "dirichlet", "shape")
SCALE_2 = Configuration("Dirichlet, κ 2", "dirichlet", "scale-2")
SCALE_2_SHAPE = Configuration("Dirichlet, κ 2, shape only", "dirichlet", "scale-2-shape")
SCALE_50 = Configuration("Dirichlet, κ 50", "dirichlet", "scale-50")
CONFIGURATIONS = (
    UNTRAINED, TECOA, PMG, CAROT, FARE, TGA, AGFT,
    DIRICHLET, MODERATE, SHAPE, SCALE_2, SCALE_2_SHAPE, SCALE_50,
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """A configuration with a seed. folder: of all units; a unit's own has its settings in its name, so that
    no result is taken for that of other settings."""

    configuration: Configuration
    seed: int
    root: Path

    @property
    def name(self) -> str:
        return f"{self.configuration.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        known = json.dumps([self.configuration.settings, STANDARD], sort_keys=True)
        digest = hashlib.sha256(known.encode()).hexdigest()[:8]
        words = "-".join(re.findall(r"\w+", self.configuration.name.lower()))
        return self.root / f"{words}-{digest}-{self.seed}"

    @property
    def epochs(self) -> list[Path]:
        """Record files by epoch; of the untrained model one, of epoch 0."""
        return sorted(self.folder.glob("epoch-[0-9][0-9][0-9].parquet"))

    @property
    def standard(self) -> Path:
        """The record file of the strong attack."""
        return self.folder / "standard.parquet"

    @property
    def finished(self) -> bool:
        return self.standard.with_suffix(".json").exists()  # written last of all

    def run(self) -> None:
        """Trains and measures it, from where it was; does nothing if it is finished."""
        if self.finished:
            return
        from trainables.finetune import measure

        settings = self.configuration.settings
        trial, evaluation = settings["trial"], settings["evaluation"]
        target = self.folder / "epoch-000.json"
        common = {"model": trial["model"], "split": "validation", "threads": 1}
        weights = None
        if self.configuration.trained:
            self._train(settings)
            weights = str(self.epochs[-1].with_suffix(".safetensors"))
        else:
            measure(**common, data=trial["data"], evaluation=evaluation, target=str(target), weights=None)
        inside = {**trial["data"], "evaluate": trial["data"]["evaluate"][:1]}
        target = self.standard.with_suffix(".json")
        measure(**common, data=inside, evaluation=evaluation | STANDARD, target=str(target), weights=weights)

    def _train(self, settings: dict[str, Any]) -> None:
        from trainables.finetune import Finetune

        share = {"threads": 1, "cpus": 1, "gpus": 0}
        trial = Finetune({**settings, **share, "seed": self.seed, "folder": str(self.folder)})
        report: dict[str, Any] = {"done": False}
        while not report["done"]:
            report = trial.step()
        if report["failed"]:
            raise RuntimeError(f"{self.name}: {report['failed']}")


def units(root: Path, seeds: int = SEEDS) -> list[Unit]:
    """All, seed after seed: a call that is ended early leaves a table of fewer seeds."""
    return [
        Unit(configuration, seed, root)
        for seed in range(seeds)
        for configuration in CONFIGURATIONS
        if seed < configuration.seeds
    ]
