"""What the sweeper knows of a trainable: a few names, imported when they are needed.

A package offers a trainable under the entry-point group `sweeper.trainables`: a dictionary with `trial` and
`evaluation` (pydantic models), `metrics` (names a trial reports), `at_times` (which of them not after each
epoch, and when), `describe` (an evaluation in a line), `final` (the default of `final`, from an evaluation),
`trainable` (a class with `step`, `save` and `load`), `measurement` (a pydantic model of what is measured and
how: `model`, `data`, `evaluation`), `measure` (evaluates a model), `fall` (how much accuracy a stronger
attack takes), `suites` (what has to be set of evaluations to measure suites), `sanity` (is its robustness to
be believed?), `resample` (metrics on resampled images, from record files), `benchmark` (a result as
clip_benchmark writes it), `errors` (exceptions that are no mistake of the program), `check` and
`check_measurement` (is all there that a trial, a measurement needs?), `check_unchanged` (are the data still
those of a sweep?), `progress` (is given a function that is to be told, at every step, what is being done and
which share of it is), `ready` (are the GPUs there that a worker was given?), `memory` (how much of it do
trials need?), `export` (writes a trial's model as a folder) and `serving` (the file with which MLflow serves
such a folder), each as "module:name". The sweeper reaches into nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeper.errors import UserError, suggestion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel

GROUP = "sweeper.trainables"
TRAINING, MEASURING = "training", "measuring"
"""How a trainable calls the parts of an epoch; see `Trainable.listen`."""


class Resampled(Protocol):
    """estimates: (C, M) metrics of C configurations.  draws: (D, C, M) the same on resampled images."""

    @property
    def estimates(self) -> NDArray[np.float64]: ...
    @property
    def draws(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Trainable:
    """A trainable by its names; each is imported at first use."""

    name: str
    names: dict[str, str]

    @staticmethod
    @lru_cache
    def find(name: str) -> Trainable:
        """The installed trainable of that name. Raises UserError if there is none."""
        found = {point.name: point for point in entry_points(group=GROUP)}
        if name not in found:
            raise UserError(f"no trainable {name!r} is installed{suggestion(name, found)}")
        return Trainable(name, found[name].load())

    def _get(self, what: str) -> Any:
        module, _, attribute = self.names[what].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            if what == "errors" or not isinstance(error, self.errors):
                raise
            raise _as_user_error(error) from error

    @cached_property
    def trial(self) -> type[BaseModel]:
        return self._get("trial")

    @cached_property
    def evaluation(self) -> type[BaseModel]:
        return self._get("evaluation")

    @cached_property
    def measurement(self) -> type[BaseModel]:
        return self._get("measurement")

    def metric_names(self, trials: Sequence[BaseModel], evaluation: BaseModel) -> list[str]:
        """Metrics that every one of the given configurations reports, in order. Raises UserError with one
        line if they can't be measured together."""
        names_of: Callable[[Any, Any], list[str]] = self._get("metrics")
        try:
            first, *others = [names_of(trial, evaluation) for trial in trials]
        except self.errors as error:
            raise _as_user_error(error) from error
        common = set(first).intersection(*others)
        return [name for name in first if name in common]

    def at_times(self, trial: BaseModel, evaluation: BaseModel) -> tuple[list[str], list[int]]:
        """Those of a trial's metrics that it reports after these epochs and its last one alone."""
        found: tuple[list[str], list[int]] = self._get("at_times")(trial, evaluation)
        return found

    def start(self, config: dict[str, Any]) -> Any:
        """A trial: its `step` runs an epoch and returns what there is to report, and its `save` and
        `load` take a folder. config: see `sweeper.tune.Searcher.suggest`."""
        return self._get("trainable")(config)

    def listen(self, listener: Callable[[str, float], None] | None) -> None:
        """Has this told what the trainable does in this process, and which share of it, in [0, 1], is done:
        `training` and `measuring` in an epoch, by other names what comes before. It has to return at once.
        Nobody is told for None."""
        self._get("progress")(listener)

    @property
    def measure(self) -> Callable[..., None]:
        return self._get("measure")

    @property
    def final(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return self._get("final")

    @property
    def fall(self) -> Callable[..., dict[str, float] | None]:
        return self._get("fall")

    def suites(self, suites: Sequence[Any]) -> list[dict[str, Any]]:
        """What of an evaluation has to be set to measure these, names or mappings: as many evaluations as it
        takes. Raises UserError for what is none."""
        try:
            needed: list[dict[str, Any]] = self._get("suites")(suites)
        except self.errors as error:
            raise _as_user_error(error) from error
        return needed

    @property
    def sanity(self) -> Callable[..., list[tuple[str, bool | None, str]]]:
        return self._get("sanity")

    @property
    def benchmark(self) -> Callable[..., dict[str, dict[str, Any]]]:
        return self._get("benchmark")

    @property
    def resample(self) -> Callable[..., Resampled]:
        return self._get("resample")

    @property
    def export(self) -> Callable[..., dict[str, Any]]:
        return self._get("export")

    @property
    def serving(self) -> Path:
        return self._get("serving")

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return self._get("errors")

    def describe(self, evaluation: dict[str, Any]) -> str:
        """What a number measured by this evaluation is: attack, images, bins, seed."""
        return str(self._get("describe")(evaluation))

    def check(self, trial: dict[str, Any], evaluations: Sequence[dict[str, Any]]) -> None:
        """Raises UserError with one line if something that the trial or its evaluations need is missing."""
        one_line(self._get("check"), trial, evaluations)

    def check_unchanged(
        self, trial: dict[str, Any], evaluation: dict[str, Any], sets: Sequence[dict[str, Any]]
    ) -> None:
        """Raises UserError if the images of a sweep are not those recorded of its untrained model."""
        one_line(partial(self._get("check_unchanged"), data=trial["data"], evaluation=evaluation, sets=sets))

    def check_worker(self, gpus: float) -> None:
        """Raises UserError with one line if this process does not find the GPUs that it was given."""
        one_line(self._get("ready"), gpus)

    def check_measurement(self, measurement: dict[str, Any]) -> None:
        """As `check`, for a model that is measured by itself."""
        one_line(self._get("check_measurement"), measurement)

    def memory(self, trials: Sequence[dict[str, Any]], **own: Any) -> list[str]:
        """Lines that say how much memory the trials need and what fits. own: `cpus` and `gpus` of a trial,
        `concurrent` trials. Raises UserError with one line if
        that can't be told."""
        try:
            lines: list[str] = self._get("memory")(trials, **own)
        except self.errors as error:
            raise _as_user_error(error) from error
        return lines


def one_line(check: Callable[..., None], *arguments: Any) -> None:
    try:
        check(*arguments)
    except Exception as error:
        raise _as_user_error(error) from error


def _as_user_error(error: Exception) -> UserError:
    """In its words. page: a trainable's exceptions may name one."""
    return UserError(str(error), getattr(error, "page", None))
