"""The sweep file: what its keys are, and how a file becomes a validated `SweepSpec`.

    name: my-sweep
    trial: {...}         # one trial's configuration, distributions in place of some values
    evaluation: {...}    # how every trial is measured; the same for all
    final: {...}         # how candidates of the Pareto set are measured before they are called optimal
    pareto: {...}        # metrics to maximize and minimize, constraints
    search: {...}  resources: {...}  tracking: {...}
    profiles: {...}      # named partial overrides of all of the above

`trial`, `evaluation` and `final` belong to the trainable; it brings their types.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from sweeper import checks, pages, shipped, space, tree
from sweeper.constraints import Constraint, parse_constraint
from sweeper.errors import SpecError, UserError, suggestion
from sweeper.mistakes import explain
from sweeper.ranking import Within
from sweeper.trainable import Trainable
from sweeper.tree import Choice, Mapping, Node, Range

if TYPE_CHECKING:
    from sweeper.pareto import Direction


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ParetoConfig(Section):
    """What "better" means: the metrics of the Pareto front, and what a member must satisfy."""

    maximize: list[str] = Field(["robust_accuracy", "clean_accuracy"], description="The more the better.")
    minimize: list[str] = Field(["robust_ece"], description="The less the better.")
    subject_to: dict[str, str] = Field(
        {}, description='Constraints, as in `{clean_accuracy: ">= 0.9 * baseline"}`.'
    )

    epochs: PositiveInt = Field(
        3,
        description="Epochs of a trial that can stand on the front, at most: of those that none of its "
        "others dominates. The weights of so many are kept.",
    )

    @property
    def metrics(self) -> list[str]:
        return [*self.maximize, *self.minimize]

    @property
    def directions(self) -> list[Direction]:
        up: list[Direction] = ["maximize" for _ in self.maximize]
        down: list[Direction] = ["minimize" for _ in self.minimize]
        return up + down

    @property
    def deciding(self) -> list[str]:
        """All metrics that say how good a trial is: a trial without finite ones has failed."""
        return list(dict.fromkeys([*self.metrics, *self.subject_to]))

    @cached_property
    def constraints(self) -> list[Constraint]:
        """Raises ValueError for a constraint that can't be read."""
        return [parse_constraint(metric, text) for metric, text in self.subject_to.items()]


class EarlyStopping(Section):
    """Asynchronous successive halving by several metrics: at each rung only the best go on."""

    metrics: list[str] | None = Field(
        None, min_length=1, description="Which of the Pareto front's are compared; all by default."
    )
    grace_epochs: PositiveInt = Field(1, description="Epochs before the first decision.")
    reduction_factor: float = Field(3, gt=1, description="One in so many goes on at each rung.")
    brackets: PositiveInt = Field(1, description="Groups of trials, each spared one rung more than the last.")
    within: Within = Field("epsilon_net", description="What is preferred inside a non-dominated front.")
    protect: NonNegativeInt = Field(
        0, description="While fewer trials than this are at a rung, all that no other dominates go on."
    )

    def rungs(self, longest: int) -> list[int]:
        """The epochs after which it is decided: grace_epochs times powers of reduction_factor, rounded
        up, before the `longest` trial's last epoch."""
        epochs: list[int] = []
        while (epoch := math.ceil(self.grace_epochs * self.reduction_factor ** len(epochs))) < longest:
            epochs.append(epoch)
        return list(dict.fromkeys(epochs))


class Budget(Section):
    """What the search may spend beside `trials`, whichever comes first; see `sweeper.budget`."""

    hours: PositiveFloat | None = Field(None, description="While the sweep is driven; pauses do not count.")
    gpu_hours: PositiveFloat | None = Field(None, description="Seconds of epochs times `resources.gpus`.")
    epochs: PositiveInt | None = Field(None, description="Of all trials together.")

    def given(self) -> dict[str, float]:
        return {name: value for name, value in self.model_dump().items() if value is not None}


class SearchConfig(Section):
    """How many trials, chosen how."""

    trials: PositiveInt = Field(20, description="Configurations that are tried, at most.")
    budget: Budget = Field(
        Budget(), description="What may be spent beside; the first that is used up ends the search."
    )
    sampler: Literal["forest", "tpe", "nsga2", "gp", "random", "grid"] = Field(
        "forest",
        description="forest: randomised trees that learn from every epoch, of stopped trials too. "
        "Multi-objective TPE, NSGA-II, a Gaussian process (parameters that only some trials have "
        "are drawn at random) or random search, all Optuna's. grid: each point of a finite space once.",
    )
    startup_trials: PositiveInt = Field(
        10, description="Trials drawn at random before the forest, TPE or GP learns."
    )
    seed: int = Field(0, ge=0, description="Of what is drawn, and of the seeds of the trials.")
    seeds: PositiveInt = Field(
        1,
        description="Trainings of each configuration on the front, the search's own included, whose mean and "
        "spread are reported.",
    )
    concurrent: PositiveInt | None = Field(None, description="Trials at a time; what fits by default.")
    deterministic: bool = Field(
        False,
        description="The same trials and decisions whatever the timing, with as many trials at a time. The "
        "sampler knows less when it draws, and trials wait for each other at the rungs of early stopping.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="None by default; `{}` stops with the defaults of its keys."
    )
    warm_start: list[str] = Field(
        [], description="Runs, by name or folder, whose results the sampler knows from the start."
    )
    known: list[dict[str, Any]] = Field(
        [],
        description="Points that are run first, {parameter: value} by the names that `sweeper plan` lists; "
        "with every combination of the !grid values that a point leaves open, the rest drawn.",
    )


class Resources(Section):
    """What one trial takes, of the memory too: the share of the machine's that its CPUs are of all, and
    the fraction of a GPU's. A trial that needs more accumulates gradients over smaller micro-batches."""

    cpus: PositiveFloat = Field(1, description="CPUs, and as many threads.")
    gpus: NonNegativeFloat = Field(
        0, description="GPUs; a fraction shares one, 0.25 among four trials. `sweeper plan FILE --memory`."
    )
    epoch_minutes: PositiveFloat = Field(
        24 * 60,
        description="What takes longer, an epoch with its evaluation or a measurement, is taken for hung: "
        "its worker is ended and another one goes on from the last epoch, three times at most.",
    )


class Tracking(Section):
    """MLflow. The server or database is MLFLOW_TRACKING_URI, by default a SQLite file in the run."""

    mlflow: bool = Field(True, description="Whether trials are delivered to MLflow.")
    experiment: str = Field("clip-sweeper", description="MLflow experiment the runs belong to.")


class SweepFile(Section):
    """The top level of a sweep file. The trainable's sections are validated by its own types."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Run folders are called by it and the time. Letters, digits, `.`, `_` and `-`.",
    )
    trainable: str = Field(
        "finetune",
        description="What a trial is: `finetune`, `evaluate`, a model that is measured as it is, or one that "
        "a package brings.",
    )
    trial: dict[str, Any] = Field(
        description="What is trained, on what, how: one trial, with distributions in place of some values."
    )
    evaluation: dict[str, Any] = Field(
        {}, description="How every trial is measured, on validation images. The same for all: never searched."
    )
    final: dict[str, Any] | None = Field(
        None,
        description="How candidates of the front are measured before they are called optimal; by default as "
        "`evaluation`, on all images, with the attack `standard` beside the search's if that attacks.",
    )
    pareto: ParetoConfig = Field(ParetoConfig(), description="What is better.")
    search: SearchConfig = Field(SearchConfig(), description="How many trials, chosen how.")
    resources: Resources = Field(Resources(), description="What one trial takes.")
    tracking: Tracking = Field(Tracking(), description="What is delivered to MLflow.")
    profiles: dict[str, Any] = Field(
        {}, description="Named partial overrides of all of these, for `--profile NAME`."
    )


@dataclass(frozen=True)
class SweepSpec:
    """A validated sweep: everything a run needs to know."""

    file: SweepFile
    tree: Mapping
    trainable: Trainable
    metrics: list[str]
    evaluation: dict[str, Any]
    final: dict[str, Any]

    @property
    def space(self) -> Node:
        return self.tree.items["trial"]

    def text(self) -> str:
        """The sweep as YAML, profile and overrides applied; loads back as the same sweep."""
        return tree.dump(self.tree)

    def base_trial(self) -> dict[str, Any]:
        """The first option and lower end of everything: what the untrained model is measured with."""
        return self.trial(next(space.probes(self.space)).value)

    @cached_property
    def known(self) -> list[dict[str, Any]]:
        """The known points, one for each trial that they are. With the sampler `grid`, which runs nothing
        twice, what a point leaves open takes every value."""
        parameters = space.distributions(self.space)
        points = [
            {name: space.canonical(value, parameters[name]) for name, value in point.items()}
            for point in self.file.search.known
        ]
        if self.file.search.sampler != "grid":
            return [each for point in points for each in space.with_grid(self.space, point)]
        every = [
            each for point in points for each in space.every(self.space) if point.items() <= each.items()
        ]
        return [each for index, each in enumerate(every) if each not in every[:index]]

    def fixed(self) -> Iterator[dict[str, Any]]:
        """What the sampler does not draw of the trials, in order: the known points, then the `!grid` values
        in turn without an end, or with the sampler `grid` the rest of the space."""
        yield from self.known
        if self.file.search.sampler == "grid":
            yield from (each for each in space.every(self.space) if each not in self.known)
        else:
            yield from itertools.cycle(space.grid(self.space))

    def rungs(self) -> list[int]:
        """The epochs after which early stopping decides; none without it."""
        stopping = self.file.search.early_stopping
        return stopping.rungs(self.max_epochs()) if stopping else []

    def max_epochs(self) -> int:
        """Epochs of the longest trial that the space can choose."""
        return max(int(trial["epochs"]) for trial in self.probes())

    def probes(self) -> list[dict[str, Any]]:
        """Trials that together have every option and both ends of every range."""
        return [self.trial(probe.value) for probe in space.probes(self.space)]

    def trial(self, value: dict[str, Any]) -> dict[str, Any]:
        """A resolved configuration with all defaults filled in, as plain JSON values."""
        dumped: dict[str, Any] = self.trainable.trial.model_validate(value).model_dump(mode="json")
        return dumped


def load(path: Path, profile: str | None = None, overrides: AbstractSequence[str] = ()) -> SweepSpec:
    """Reads and validates a sweep file, or the shipped one of that name. Raises SpecError with one line for
    every mistake."""
    file = shipped.file(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError([f"{path}: can't be read: {reason}{shipped.hint(path)}"]) from None
    return from_text(text, str(file), profile, overrides)


def from_text(
    text: str, source: str, profile: str | None = None, overrides: AbstractSequence[str] = ()
) -> SweepSpec:
    """As `load`, from the text itself; `source` names it in messages."""
    return from_tree(tree.parse(text, source), source, profile, overrides)


def from_tree(
    root: Node, source: str, profile: str | None = None, overrides: AbstractSequence[str] = ()
) -> SweepSpec:
    """As `from_text`, from its tree."""
    if profile is not None:
        root = apply_profile(root, profile, source)
    for assignment in overrides:
        root = tree.override(root, assignment)
    return validate(root)


def apply_profile(root: Node, profile: str, source: str) -> Node:
    """The tree with the overrides of `profiles.PROFILE` laid over it, and without `profiles`."""
    root = as_mapping(root)
    profiles = root.items.get("profiles")
    known = list(profiles.items) if isinstance(profiles, Mapping) else []
    if not isinstance(profiles, Mapping) or profile not in known:
        hint = suggestion(profile, known) if known else "; the file has no profiles"
        raise SpecError([f"{source}: no profile {profile!r}{hint}"], pages.PROFILES)
    return tree.merge(without(root, "profiles"), profiles.items[profile])


def as_mapping(root: Node) -> Mapping:
    if not isinstance(root, Mapping):
        raise SpecError([f"{root.place}: expected the keys of a sweep (name, trial, ...)"])
    return root


def validate(root: Node) -> SweepSpec:
    """Raises SpecError with all mistakes that could be found."""
    root = as_mapping(root)
    lines = list(misplaced_distributions(root))
    resolved = space.resolve(without(root, "trial", "profiles"), first_value)
    value = resolved.value | {"trial": {}} if "trial" in root.items else resolved.value
    file, trainable = None, named_trainable(root)
    try:
        file = SweepFile.model_validate(value)
    except ValidationError as error:
        lines += explain(error, SweepFile, resolved, value)
    mistakes = [
        line
        for section in ("evaluation", "final")
        for line in explain_section(trainable.evaluation, resolved, section)
    ]
    lines += mistakes
    trials, trial_lines = (
        validate_space(root.items["trial"], trainable) if "trial" in root.items else ([], [])
    )
    lines += trial_lines
    if file is None:
        raise SpecError(list(dict.fromkeys(lines)))
    lines += check_profiles(root)
    metrics = []
    page = pages.SWEEP_FILE
    if trials and not mistakes:
        metrics = trainable.metric_names(trials, trainable.evaluation.model_validate(file.evaluation))
        unknown = list(checks.metrics(file, metrics, resolved.places))
        page = pages.METRICS if unknown and not lines else page
        lines += unknown
        if file.final is not None:
            measured = trainable.metric_names(trials, trainable.evaluation.model_validate(file.final))
            lines += checks.final(file, metrics, measured, resolved.places)
    longest = max((getattr(trial, "epochs", 1) for trial in trials), default=1)
    lines += [*checks.budget(file, resolved.places), *checks.deterministic(file, resolved.places)]
    lines += checks.warm_start(file, resolved.places)
    if trials:
        lines += checks.rungs(file, longest, resolved.places)
        if not mistakes:
            times = trainable.at_times(trials[0], trainable.evaluation.model_validate(file.evaluation))
            lines += checks.times(file, longest, *times, resolved.places)
    if not lines:
        lines += checks.known(root.items["trial"], file, resolved.places)
        lines += checks.finite(root.items["trial"], file, resolved.places)
    if lines:
        raise SpecError(list(dict.fromkeys(lines)), page)
    evaluation = trainable.evaluation.model_validate(file.evaluation).model_dump(mode="json")
    final = (
        trainable.final(evaluation)
        if file.final is None
        else trainable.evaluation.model_validate(file.final).model_dump(mode="json")
    )
    sweep = SweepSpec(file, root, trainable, metrics, evaluation, final)
    if lines := list(checks.trials(sweep, resolved.places)):
        raise SpecError(lines)
    return sweep


def named_trainable(root: Mapping) -> Trainable:
    """Raises SpecError for one that is not installed."""
    node = root.items.get("trainable")
    name = getattr(node, "value", SweepFile.model_fields["trainable"].default)
    try:
        return Trainable.find(str(name))
    except UserError as error:
        raise SpecError([f"{node.place if node else root.place}: trainable: {error}"]) from error


def validate_space(node: Node, trainable: Trainable) -> tuple[list[Any], list[str]]:
    """Validated probes of the space, and a line for every mistake in it."""
    if not isinstance(node, Mapping):
        return [], [f"{node.place}: trial: expected the keys of a trial's configuration"]
    trials, lines = [], []
    for probe in space.probes(node):
        try:
            trials.append(trainable.trial.model_validate(probe.value))
        except ValidationError as error:
            lines += explain(error, trainable.trial, probe, probe.value, "trial")
    return trials, lines


def first_value(_: str, distribution: Choice | Range) -> Any:
    return space.values(distribution)[0]


def without(root: Mapping, *keys: str) -> Mapping:
    return Mapping({k: v for k, v in root.items.items() if k not in keys}, root.place, root.keys)


def misplaced_distributions(root: Mapping) -> Iterator[str]:
    unknown = set(root.items) - set(SweepFile.model_fields)  # a misspelt `trial` has its own line
    for name, distribution in space.distributions(without(root, "trial", "profiles", *unknown)).items():
        yield (
            f"{distribution.place}: {name}: a distribution can't stand here; "
            "only values under `trial` are searched"
        )


def check_profiles(root: Mapping) -> Iterator[str]:
    profiles = root.items.get("profiles")
    if isinstance(profiles, Mapping):
        for name in profiles.items:
            try:
                validate(apply_profile(root, name, ""))
            except SpecError as error:
                yield from error.lines


def measurement(trainable: Trainable, content: Any, overrides: AbstractSequence[str] = ()) -> dict[str, Any]:
    """A validated measurement with all defaults filled in, as plain JSON values.

    content: its `model`, `data` and `evaluation`.  Raises SpecError with one line for every mistake.
    """
    root: Node = tree.from_plain(content, "command line")
    for assignment in overrides:
        root = tree.override(root, assignment)
    lines = list(misplaced_distributions(as_mapping(root)))
    resolved = space.resolve(root, first_value)
    try:
        valid = trainable.measurement.model_validate(resolved.value)
    except ValidationError as error:
        lines += explain(error, trainable.measurement, resolved, resolved.value)
    if lines:
        raise SpecError(lines)
    plain: dict[str, Any] = valid.model_dump(mode="json")
    return plain


def explain_section(model: type[BaseModel], resolved: space.Resolved, key: str) -> list[str]:
    value = resolved.value.get(key)
    if value is None:
        return []
    places = {path[1:]: place for path, place in resolved.places.items() if path[:1] == (key,)}
    try:
        model.model_validate(value)
    except ValidationError as error:
        return explain(error, model, space.Resolved(value, places, {}), value, key)
    return []
