"""Several runs beside each other: their joint front, who contributes what, and what each of them gained.

The models of a run are the candidates of its front, as one stage measured them, each as the search trained
it: further seeds do not count. Of these count what holds the constraints of all the runs. `sweeper.alike`
says what can be compared, `sweeper.joint` has the numbers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper import joint, membership
from sweeper.alike import Array, Row, Ruler, Side, check, ruler_of, sides_of
from sweeper.errors import UserError
from sweeper.pareto import as_costs, non_dominated
from sweeper.run import Run
from sweeper.table import ARROW, interval
from sweeper.table import percent as probability
from sweeper.terminal import amount
from sweeper.trial import SPLIT, Stage

Content = Mapping[str, Any]

DRAWS = 1000
"""Samples of the images for the intervals."""
SEED = 0
LOOK: dict[str, Any] = {"title_justify": "left", "box": None, "pad_edge": False, "header_style": "bold"}


def compare(runs: Sequence[Run], metrics: Sequence[str] = (), stage: Stage | None = None) -> dict[str, Any]:
    """The comparison as JSON values.

    metrics: objectives of a run, or others as in `minimize transfer.clean_nll`; by default the runs' own.
    stage: `final` by default if all candidates were measured so, else `validation`; of `test` images only
    what was chosen before is known.  Raises UserError with one line if the runs can't be compared.

    `runs` and `methods` have the number of `models` and of those on the `joint` front, which `share` of it
    that is, `hypervolume` and what is `gained`, each with `value`, `low` and `high`, both also as parts of
    the joint front's: `hypervolume_share`, `gained_share`. `models` has every model: `run` (its letter),
    `metrics`, `intervals`, whether it is on the `joint` front and with which `probability`, whether it
    `holds` the constraints, and what in other runs has the `same` configuration. `beaten` has for each two
    runs, and each two methods, how many of the `models` on the front `of` one are `dominated` `by` the other.
    `reference` is the point from which hypervolumes are measured.
    """
    sides = sides_of(runs)
    ruler = ruler_of(sides, metrics, stage)
    check(sides, ruler)
    known = [(side, row) for side in sides for row in side.rows(ruler.stage)]
    laid, text = lay(ruler, known)
    by_run = Groups([side.letter for side in sides], [side.letter for side, _ in known])
    by_method = Groups(sorted({row["method"] for _, row in known}), [row["method"] for _, row in known])
    ways = list(ruler.objectives.values())
    return {
        "stage": ruler.stage,
        "protocol": sides[0].content[ruler.stage]["text"],
        **{
            way: [name for name, own in ruler.objectives.items() if own == way]
            for way in ("maximize", "minimize")
        },
        "subject_to": [str(each) for each in ruler.constraints],
        "reference": dict(zip(ruler.objectives, as_costs(laid.reference, ways)[0].tolist(), strict=True)),
        "hypervolume": laid.whole(),
        "intervals": text,
        "notes": list(notes(sides, ruler)),
        "runs": [about(side) | row for side, row in zip(sides, laid.shares(by_run), strict=True)],
        "methods": [
            {"method": name} | row for name, row in zip(by_method.names, laid.shares(by_method), strict=True)
        ],
        "beaten": [pair for groups in (by_run, by_method) for pair in laid.pairs(groups)],
        "models": [
            model(side, row, ruler) | laid.standing(place) | {"same": same(known, place)}
            for place, (side, row) in enumerate(known)
        ],
    }


def lay(ruler: Ruler, known: Sequence[tuple[Side, Row]]) -> tuple[Laid, str]:
    """The models laid over each other, and what their intervals are. Raises UserError if none counts."""
    values = ruler.table([row for _, row in known])
    untrained = ruler.table([side.content["baseline"] for side, _ in known])
    costs, violation = ruler.costs(values), ruler.violation(values, untrained)
    if not non_dominated(costs, violation).any():
        wanted = " and ".join(map(str, ruler.constraints)) or "finite metrics"
        raise UserError(f"no model of these runs has {wanted} ({ruler.stage})")
    drawn, text = sampled(ruler, known)
    return Laid(
        costs, violation, joint.common_reference(costs, ruler.costs(untrained), violation), drawn
    ), text


def sampled(ruler: Ruler, known: Sequence[tuple[Side, Row]]) -> tuple[tuple[Array, Array] | None, str]:
    """Costs (D, n, m) and violations (D, n) on resampled images, the same for all models, centred on what was
    measured; and what the intervals are, or why there are none."""
    untrained = [(side, side.content["baseline"]) for side, _ in known] if ruler.constraints else []
    wanted = {(side.letter, row["id"]): (side, row) for side, row in (*known, *untrained)}
    files = {key: side.records(row, ruler.stage) for key, (side, row) in wanted.items()}
    missing = next((file for file in files.values() if not file.is_file()), None)
    if missing is not None:
        return None, f"There are no intervals, as {missing} is not there."
    brought = [[wanted[key][0].run.storage.fetch(file)] for key, file in files.items()]
    trainable = known[0][0].run.spec.trainable
    try:
        found = trainable.resample(brought, ruler.needed, draws=DRAWS, seed=SEED)
    except trainable.errors as error:
        return None, f"There are no intervals: {error}."
    values, place = (
        membership.centred(found.estimates, found.draws),
        {key: at for at, key in enumerate(files)},
    )
    models = values[:, [place[side.letter, row["id"]] for side, row in known]]
    bounds = values[:, [place[side.letter, row["id"]] for side, row in untrained]] if untrained else models
    return (ruler.costs(models), ruler.violation(models, bounds)), (
        f"Beside a number: its 95 % interval. Those of hypervolumes are by {DRAWS} samples of the "
        f"{SPLIT[ruler.stage]} images (seed {SEED}), which are the same for all models."
    )


@dataclass(frozen=True)
class Groups:
    """Names of groups, and that of each model."""

    names: list[str]
    of: list[str]

    @property
    def numbers(self) -> NDArray[np.int64]:
        return np.array([self.names.index(name) for name in self.of])


class Laid:
    """All models laid over each other. reference: of hypervolumes.  drawn: see `sampled`."""

    def __init__(
        self, costs: Array, violation: Array, reference: Array, drawn: tuple[Array, Array] | None
    ) -> None:
        self.costs, self.violation, self.reference, self.drawn = costs, violation, reference, drawn
        self.member = non_dominated(costs, violation)
        self.probability = None if drawn is None else membership.probability(*drawn)

    def volumes(self, groups: Groups) -> tuple[joint.Volumes, list[joint.Volumes]]:
        """As measured, and on each sample of the images."""
        of = groups.numbers, len(groups.names), self.reference
        draws = () if self.drawn is None else zip(*self.drawn, strict=True)
        measured = joint.volumes(self.costs, *of, self.violation)
        return measured, [joint.volumes(costs, *of, broken) for costs, broken in draws]

    def whole(self) -> dict[str, float | None]:
        measured, draws = self.volumes(Groups([""], [""] * len(self.costs)))
        return estimate([measured.whole, *(each.whole for each in draws)])

    def shares(self, groups: Groups) -> list[Row]:
        """What each group contributes."""
        measured, draws = self.volumes(groups)
        models = np.bincount(groups.numbers, minlength=len(groups.names))
        members = np.bincount(groups.numbers[self.member], minlength=len(groups.names))
        rows = []
        for place in range(len(groups.names)):
            own = [(each.own[place], each.gained[place], each.whole) for each in (measured, *draws)]
            rows.append(
                {
                    "models": int(models[place]),
                    "joint": int(members[place]),
                    "share": float(members[place] / members.sum()),
                    "hypervolume": estimate([volume for volume, _, _ in own]),
                    "hypervolume_share": estimate(
                        [volume / whole if whole else 0.0 for volume, _, whole in own]
                    ),
                    "gained": estimate([gained for _, gained, _ in own]),
                    "gained_share": estimate([gained / whole if whole else 0.0 for _, gained, whole in own]),
                }
            )
        return rows

    def pairs(self, groups: Groups) -> list[Row]:
        """Of each two groups how many models on the front of one are dominated by models of the other."""
        models, counts = joint.beaten(self.costs, groups.numbers, len(groups.names), self.violation)
        return [
            {"by": by, "of": of, "models": int(models[column]), "dominated": int(counts[row, column])}
            for row, by in enumerate(groups.names)
            for column, of in enumerate(groups.names)
            if row != column
        ]

    def standing(self, place: int) -> Row:
        """How a model stands among all."""
        probability = None if self.probability is None else float(self.probability[place])
        return {
            "joint": bool(self.member[place]),
            "holds": bool(self.violation[place] <= 0),
            "probability": probability,
        }


def estimate(values: Sequence[float]) -> dict[str, float | None]:
    """As measured, which is the first, with the 95 % interval that the others give, if there are any."""
    low, high = np.quantile(values[1:], [0.025, 0.975]).tolist() if len(values) > 1 else (None, None)
    return {"value": float(values[0]), "low": low, "high": high}


def about(side: Side) -> Row:
    return {
        "letter": side.letter,
        "run": side.run.name,
        "id": side.run.id,
        "place": str(side.run),
        "trials": len(side.content["trials"]),
    }


def model(side: Side, row: Row, ruler: Ruler) -> Row:
    intervals = row["intervals"][ruler.stage] or {}
    return {
        "run": side.letter,
        **{key: row[key] for key in ("id", "method", "seed", "drawn", "config", "pareto")},
        "metrics": {name: row[ruler.stage][name] for name in ruler.needed},
        "intervals": {name: list(intervals[name]) for name in ruler.needed if name in intervals},
    }


def same(known: Sequence[tuple[Side, Row]], place: int) -> list[str]:
    """Models of other runs that the same configuration made in as many epochs: `B t003@2`."""

    def made_by(row: Row) -> str:
        return json.dumps([row["config"], row["epoch"]], sort_keys=True)

    own, made = known[place][0].letter, made_by(known[place][1])
    return [
        f"{side.letter} {row['id']}" for side, row in known if side.letter != own and made_by(row) == made
    ]


def notes(sides: Sequence[Side], ruler: Ruler) -> Iterator[str]:
    for each in ruler.constraints:
        without = [side.letter for side in sides if each not in side.run.spec.file.pareto.constraints]
        if without:
            yield (
                f"{' and '.join(without)} did not search subject to {each}: those of its models count that "
                "hold it, and others that do may not be on its front."
            )


def to_csv(content: Content) -> str:
    """All models as CSV, full precision."""
    names = list(content["models"][0]["metrics"])
    drawn = list(dict.fromkeys(name for row in content["models"] for name in row["drawn"]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", "id", "method_name", "seed", "joint", "probability", "same", *drawn, *names])
    runs = {each["letter"]: each["run"] for each in content["runs"]}
    for row in content["models"]:
        settings = (row["drawn"].get(name) for name in drawn)
        own = (
            row["id"],
            row["method"],
            row["seed"],
            row["joint"],
            row["probability"],
            "; ".join(row["same"]),
        )
        writer.writerow([runs[row["run"]], *own, *settings, *(row["metrics"][name] for name in names)])
    return buffer.getvalue()


def compare_table(content: Content) -> RenderableType:
    """For the terminal: the runs and methods, the joint front, and what the numbers are."""
    runs, joined = content["runs"], joint_front(content)
    shares = Table(title=heading(content), **LOOK)
    for name in ("", "models", "on the\njoint front", "hypervolume\nof the joint front's", "gained"):
        shares.add_column(name, justify="right" if name else "left")
    for row in [*runs, *content["methods"]]:
        name = row.get("letter") or row["method"]
        members = f"{row['joint']} ({percent(row['share'])})"
        parts = (spread(row["hypervolume_share"]), spread(row["gained_share"]))
        shares.add_row(name, str(row["models"]), members, *parts, end_section=row is runs[-1])
    names = [*content["maximize"], *content["minimize"]]
    front = Table(**LOOK)
    front.add_column("")
    front.add_column("")
    for name in names:
        arrow = ARROW["maximize" if name in content["maximize"] else "minimize"]
        words = name.replace("_", "\n", 1).replace(".", "\n")
        front.add_column(f"{words} {arrow}", no_wrap=True)
    front.add_column("P(joint)", justify="right")
    for row in joined:
        cells = (f"{row['metrics'][n]:.4f} {interval(row['intervals'], n)}".rstrip() for n in names)
        front.add_row(f"{row['run']} {row['id']}", row["method"], *cells, probability(row["probability"]))
    texts = [f"{row['letter']}: {row['run']}, {amount(row['trials'], 'trial')}" for row in runs]
    notes = [Text(note, "dim") for note in explanations(content)]
    return Group(*map(Text, texts), Text(), shares, Text(), front, Text(), *notes)


def heading(content: Content) -> str:
    """As `Joint front of 2 runs: 3 of 4 models`."""
    models = amount(len(content["models"]), "model")
    return f"Joint front of {len(content['runs'])} runs: {len(joint_front(content))} of {models}"


def joint_front(content: Content) -> list[Row]:
    """Its models, the best in the first objective first."""
    first = [*content["maximize"], *content["minimize"]][0]
    sign = -1 if first in content["maximize"] else 1
    return sorted(
        (row for row in content["models"] if row["joint"]), key=lambda row: sign * row["metrics"][first]
    )


def explanations(content: Content) -> Iterator[str]:
    """What the numbers are, a line each."""
    yield f"Measured on {content['protocol']}."
    yield content["intervals"]
    reference = ", ".join(f"{name} {value:.4g}" for name, value in content["reference"].items())
    yield (
        f"Hypervolume: what models dominate, up to {reference}: the worst in each of the joint front and the "
        f"untrained model, and a tenth of the range beyond; {content['hypervolume']['value']:.4g} in all. "
        "Gained: the part of it that would be lost without the run, or the method."
    )
    if content["models"][0]["probability"] is not None:
        yield "P(joint): the share of these samples in which the model is on the joint front."
    letters = {row["letter"] for row in content["runs"]}
    beaten = [pair for pair in content["beaten"] if {pair["by"], pair["of"]} <= letters and pair["dominated"]]
    for pair in beaten:
        of = f"{pair['dominated']} of the {pair['models']} models on the front of {pair['of']}"
        yield f"{pair['by']} dominates {of}."
    if not beaten:
        yield "No run dominates a model on the front of another one."
    for row in content["models"]:
        if row["same"] and all(other.partition(" ")[0] > row["run"] for other in row["same"]):
            yield f"The same configuration: {row['run']} {row['id']} and {' and '.join(row['same'])}."
    yield from (f"Subject to {constraint}." for constraint in content["subject_to"])
    yield from content["notes"]


def spread(of: Mapping[str, float | None]) -> str:
    """`93 % 88–97`."""
    value, low, high = (of[key] for key in ("value", "low", "high"))
    shown = percent(value or 0.0)
    return shown if low is None or high is None else f"{shown} {low * 100:.0f}–{high * 100:.0f}"


def percent(share: float) -> str:
    return f"{share * 100:.0f} %"
