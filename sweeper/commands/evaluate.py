"""`sweeper evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper import completions
from sweeper.commands.run import enter
from sweeper.errors import Exit, UserError
from sweeper.options import JSON, RUN, RUNS, examples
from sweeper.terminal import console, print_json

if TYPE_CHECKING:
    from sweeper.evaluation import Measurement
    from sweeper.storage import Root
    from sweeper.trial import Split


@click.command(
    epilog=examples(
        "sweeper evaluate t003@5 --attack standard --set images=1000",
        "sweeper evaluate t003 --sanity",
        "sweeper evaluate ViT-B-32/openai --data cifar10 --data dtd --json",
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
    prompt: str | None,
    split: Split,
    attacks: tuple[str, ...],
    overrides: tuple[str, ...],
    sanity: bool,
    as_json: bool,
    to: Path | None,
) -> None:
    """Measure a model: by strong attacks, on other data.

    MODEL is a trial of a run after an epoch (t003@5, or t003 for its last kept one), or `baseline`. With
    --data it is an exported folder, hf-hub:ORG/REPO, ARCHITECTURE/TAG of open_clip such as ViT-B-32/openai,
    or clip-tiny; the result is then also written as clip_benchmark writes it, a file per data set.
    """
    from sweeper import evaluation
    from sweeper.run import Run

    if sets:
        if run is not None:
            raise UserError(f"--data measures {model} by itself, without a run; leave {run!r} out")
        measurement = evaluation.of_model(
            model,
            sets,
            split,
            to=to or Path("evaluations"),
            prompt=prompt,
            overrides=overrides,
            attacks=attacks,
        )
    elif prompt is not None or to is not None:
        raise UserError("--prompt and --to go with --data NAME, the data set to measure on")
    elif run is None and evaluation.is_model(model):
        raise UserError(f"{model} belongs to no run: name the data set to measure it on, --data NAME")
    else:
        found = Run.find(run, runs)
        enter(found)
        measurement = evaluation.of_trial(found, model, split, overrides, attacks)
    if sanity:
        check(measurement, as_json)
    else:
        measure(measurement, as_json)


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


def measure(measurement: Measurement, as_json: bool) -> None:
    file = measurement.measure()
    written = measurement.write_benchmark(file)
    if as_json:
        click.echo(file.read_text(encoding="utf-8"))
        return
    console().print(measurement.table(file))
    for each in written:
        click.echo(f"as clip_benchmark: {each}")
