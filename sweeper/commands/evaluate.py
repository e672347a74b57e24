"""`sweeper evaluate`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeper import completions
from sweeper.commands.run import enter
from sweeper.errors import Exit, UserError
from sweeper.files import read_json
from sweeper.options import JSON, RUN, RUNS, examples
from sweeper.terminal import console, print_json
from sweeper.trial import BASELINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweeper.evaluation import Measurement
    from sweeper.run import Run
    from sweeper.storage import Root
    from sweeper.trial import Split


@click.command(
    epilog=examples(
        "sweeper evaluate t003@5 --attack standard --set images=1000",
        "sweeper evaluate t003 --sanity",
        "sweeper evaluate ViT-B-32/openai --data cifar10 --data dtd --json",
        "sweeper evaluate pareto --suite embedded-shifts --suite embedded-ood",
    )
)
@click.argument("model", shell_complete=completions.models)
@RUN
@RUNS
@click.option(
    "--data",
    "sets",
    metavar="NAME|PATH",
    multiple=True,
    help="A data set, or with a slash in it an image folder; may be repeated. MODEL then belongs to no run.",
)
@click.option(
    "--suite",
    "suites",
    metavar="NAME|FILE",
    multiple=True,
    shell_complete=completions.suites,
    help="Measure what a suite asks for, as shifts or embedded-ood; may be repeated. Or a file of your own.",
)
@click.option("--prompt", help="Template of --data, with {} for the class name.")
@click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    help="As standard, torchattacks.Square; in place of the sweep's.",
)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="As attack.epsilon=4/255 or images=1000.",
)
@click.option("--sanity", is_flag=True, help="Check instead whether the robustness is to be believed.")
@JSON
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Folder, or .json file, for the results of --data; `evaluations` by default.",
)
def command(
    *,
    model: str,
    run: str | None,
    runs: Root,
    sets: tuple[str, ...],
    suites: tuple[str, ...],
    prompt: str | None,
    split: Split,
    attacks: tuple[str, ...],
    overrides: tuple[str, ...],
    sanity: bool,
    as_json: bool,
    to: Path | None,
) -> None:
    """Measure a model: by strong attacks, on other data, by suites.

    MODEL is a trial of a run after an epoch (t003@5, or t003 for its last kept one), `baseline`, or `pareto`
    for that and the whole Pareto set. With --data, or with --suite alone, it can be an exported folder,
    hf-hub:ORG/REPO, ARCHITECTURE/TAG of open_clip such as ViT-B-32/openai, or clip-tiny; the result is then
    also written as clip_benchmark writes it, a file per data set.
    """
    from sweeper import evaluation
    from sweeper.run import Run
    from sweeper.suites import given, planned, within
    from sweeper.trainable import Trainable

    asked = given(suites)
    how: dict[str, Any] = {"overrides": overrides, "attacks": attacks}
    if sets or (asked and evaluation.is_model(model)):
        if run is not None:
            raise UserError(f"{model} is measured by itself, without a run; leave {run!r} out")
        trainable = Trainable.find("finetune")
        data = sets or within(asked, trainable)
        to = to or Path("evaluations")
        makes = [partial(evaluation.of_model, model, data, split, to=to, prompt=prompt, **how)]
    elif prompt is not None or to is not None:
        raise UserError("--prompt and --to go with --data NAME, the data set to measure on")
    elif run is None and evaluation.is_model(model):
        raise UserError(f"{model} belongs to no run: name the data set to measure it on, --data NAME")
    else:
        found = Run.find(run, runs)
        enter(found)
        trainable = found.spec.trainable
        makes = [partial(evaluation.of_trial, found, name, split, **how) for name in named(found, model)]
    if sanity:
        check(makes[0](), as_json)
        return
    plans = [planned(trainable, asked, make) if asked else [make()] for make in makes]
    measure([measurement for plan in plans for measurement in plan], as_json)


def named(run: Run, model: str) -> list[str]:
    """The models of a run that a command line means."""
    if model != "pareto":
        return [model]
    members = [row["id"] for row in run.pareto()["candidates"] if row["pareto"]]
    return [BASELINE, *members]


def check(measurement: Measurement, as_json: bool) -> None:
    """Ends with an exit code of its own if a check has failed."""
    findings = measurement.sanity()
    if as_json:
        print_json([{"name": name, "passed": passed, "detail": text} for name, passed, text in findings])
    else:
        words = {True: "passed", False: "FAILED", None: "not checked"}
        for name, passed, detail in findings:
            click.echo(f"{name}: {words[passed]}: {detail}")
    if any(passed is False for _, passed, _ in findings):
        sys.exit(Exit.FAILED)


def measure(measurements: Sequence[Measurement], as_json: bool) -> None:
    """One after another, each told of when it is done. As JSON: one result, or a list of several."""
    from sweeper.suites import tables

    results = []
    for measurement in measurements:
        file = measurement.measure()
        written = measurement.write_benchmark(file)
        if as_json:
            results.append(read_json(file))
            continue
        suites = measurement.content["evaluation"]["suites"]
        console().print(tables(measurement, file) if suites else measurement.table(file))
        for each in written:
            click.echo(f"as clip_benchmark: {each}")
    if as_json:
        print_json(results[0] if len(results) == 1 else results)
