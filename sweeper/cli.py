"""The `sweeper` command. Its verbs are the files of `sweeper.commands`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click
from click.exceptions import NoArgsIsHelpError

from sweeper.errors import EXITS, Exit, UserError
from sweeper.limits import space_needed

VERBS = {
    "Search": ("run", "plan", "resume", "stop"),
    "Look": ("status", "logs", "pareto", "compare", "report", "ui"),
    "Use what was found": ("evaluate", "export", "track"),
    "Clusters": ("submit", "down"),
    "Shell": ("completion",),
}
"""By what they are for, in the order of the help."""


@contextmanager
def ended(ctx: click.Context) -> Iterator[None]:
    """Inside, what a user can mend, or has ended by Ctrl-C, ends as `EXITS` says."""
    try:
        yield
    except NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        verb = (error.ctx or ctx).command_path
        click.echo(f"{verb}: {error.format_message()} `{verb} --help` says what there is.", err=True)
        ctx.exit(Exit.USER)
    except UserError as error:
        click.echo(error.told(), err=True)
        ctx.exit(Exit.USER)
    except KeyboardInterrupt:
        ctx.exit(Exit.INTERRUPTED)


class Commands(click.Group):
    """Reports errors a user can mend as they are, without a traceback. Keeps the arguments, for a verb that
    runs elsewhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        with ended(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        with ended(ctx), space_needed():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in VERBS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(62)) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in EXITS.items()])


@click.group(
    name="sweeper",
    cls=Commands,
    subcommand_metavar="VERB [ARGUMENTS]",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="clip-sweeper")
def main() -> None:
    """Sweeps of adversarial CLIP fine-tuning: search, compare, take the Pareto set.

    \b
    The first one, and what it is at from another shell:
      sweeper run search_spaces/quickstart.yaml
      sweeper status

    FILE is a sweep file; RUN a folder, an s3:// address or a name under --runs, the latest run when left
    out. `sweeper VERB --help` has examples.
    """


<<<<<<< HEAD
for _names in VERBS.values():
    for _name in _names:
        main.add_command(import_module(f"sweeper.commands.{_name}").command, _name)
=======
@main.command()
@FILE
@PROFILE
@SET
@RUNS
def run(file: Path, profile: str | None, overrides: tuple[str, ...], runs: Root) -> None:
    """Run the sweep in FILE and print its Pareto set."""
    from sweeper import runner, spec

    _drive(runner.start(spec.load(file, profile, overrides), runs))


@main.command()
@FILE
@PROFILE
@SET
@click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    help="The cluster that `ray up` made from this file; by default the one whose head this is.",
)
@click.option("--runs", help="The cluster's folder or bucket for runs, in place of its SWEEPER_RUNS.")
def submit(
    *, file: Path, profile: str | None, overrides: tuple[str, ...], cluster: Path | None, runs: str | None
) -> None:
    """Run the sweep in FILE as a Ray job: its driver is on the cluster, and this machine can be closed."""
    from sweeper import remote, runner, spec, storage, submission

    sweep = spec.load(file, profile, overrides)
    if cluster is not None:
        sys.exit(remote.submit(cluster, sweep.text(), [] if runs is None else ["--runs", runs]))
    client = submission.connect()  # before a run folder is made
    _submitted(runner.start(sweep, storage.root(runs or os.environ.get("SWEEPER_RUNS", "runs"))), client)


def _submitted(run: Run, client: JobSubmissionClient) -> None:
    from sweeper import submission

    job = submission.submit(run, client)
    click.echo(f"run {run.name} goes on as Ray job {job}; sweeper logs, status, stop, pareto {run.name}")


@main.command()
@RUN
@RUNS
@click.option("--trials", type=int, help="Extend it to so many trials; short for --set search.trials=N.")
@SET
@click.option("--submit", is_flag=True, help="As a Ray job, like `sweeper submit`; so with --cluster.")
@CLUSTER
def resume(
    *, run: str | None, runs: Root, trials: int | None, overrides: tuple[str, ...], submit: bool
) -> None:
    """Go on with a run that was interrupted, or with more budget (search.trials, search.budget)."""
    from sweeper import runner, submission
    from sweeper.extend import extend
    from sweeper.run import Run

    found = Run.find(run, runs)
    client = submission.connect() if submit else None
    _enter(found)
    given = overrides if trials is None else (*overrides, f"search.trials={trials}")
    found = extend(found, given) if given else found
    runner.preflight(found.spec)
    if client is not None:
        _submitted(found, client)
    else:
        _drive(found)


@main.command()
@RUN
@RUNS
@CLUSTER
def stop(run: str | None, runs: Root) -> None:
    """Stop a run that goes on, as Ctrl-C would; what it has finished stays."""
    from sweeper.run import Run
    from sweeper.stopping import stop_driver

    found = Run.find(run, runs)
    stop_driver(found)
    click.echo(f"{found.name} has stopped; go on with: sweeper resume {found}")


def _enter(run: Run) -> None:
    """To where a run was started, so that relative paths in its sweep file mean what they meant there."""
    directory = Path(run.about["directory"])
    if directory.is_dir():
        os.chdir(directory)


def _drive(run: Run) -> None:
    from sweeper import runner
    from sweeper.files import read_json

    try:
        runner.drive(run)
    except KeyboardInterrupt:
        _print_front(run.pareto())
        click.echo(f"interrupted; go on with: sweeper resume {run}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Obstacle as error:
        raise UserError(f"{error}; nothing is lost, go on with: sweeper resume {run}") from error
    _print_front(read_json(run.path / "pareto.json"))
    click.echo(f"report: {run.path / 'report' / 'index.html'}\nmlflow: sweeper ui {run}")


def _print_front(content: dict[str, Any]) -> None:
    from rich.console import Console

    from sweeper.table import pareto_table

    Console().print(pareto_table(content))


@main.command()
@FILE
@PROFILE
@SET
@click.option("--memory", is_flag=True, help="Say also how much memory a trial needs, and what fits.")
@click.option(
    "--cluster", type=click.Path(path_type=Path), help="Say also what of it this cluster can grow to hold."
)
@click.option("--like", metavar="RUN", help="With --cluster: expect trials to take as long as this run's.")
@RUNS
def plan(
    *,
    file: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    memory: bool,
    cluster: Path | None,
    like: str | None,
    runs: Root,
) -> None:
    """Show what FILE would run, without running it."""
    from sweeper import capacity, expense, spec
    from sweeper.plan import print_memory, print_plan
    from sweeper.run import Run

    sweep = spec.load(file, profile, overrides)
    print_plan(sweep)
    if memory:
        print_memory(sweep)
    if cluster is not None:
        for line in expense.lines(sweep, capacity.read(cluster), Run.find(like, runs) if like else None):
            click.echo(line)
    elif like is not None:
        raise UserError("--like RUN goes with --cluster FILE: how long trials take says what they cost there")


@main.command()
@RUN
@RUNS
@click.option("--json", "as_json", is_flag=True, help="Write JSON: every trial, full precision.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV: the Pareto set, full precision.")
@CLUSTER
def pareto(run: str | None, runs: Root, as_json: bool, as_csv: bool) -> None:
    """Print the non-dominated configurations of a run."""
    from sweeper.result import to_csv
    from sweeper.run import Run

    found = Run.find(run, runs)
    if as_json:
        click.echo(json.dumps(found.pareto(), indent=1, allow_nan=False))
    elif as_csv:
        click.echo(to_csv(found.pareto()), nl=False)
    else:
        _print_front(found.pareto())


@main.command()
@click.argument("names", metavar="RUN RUN...", nargs=-1)
@RUNS
@click.option(
    "--metrics",
    metavar="NAME,NAME",
    help="Compare by these objectives, in place of the runs' own; of another metric say 'minimize NAME'.",
)
@click.option(
    "--stage",
    type=click.Choice(["search", "final", "test"]),
    help="Whose numbers; final's by default if there are any of all candidates.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON: every model, full precision.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV: every model, full precision.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Write also a page, FILE.html, or the joint front for a paper: FILE.pdf, .svg, .png.",
)
@CLUSTER
def compare(
    *,
    names: tuple[str, ...],
    runs: Root,
    metrics: str | None,
    stage: str | None,
    as_json: bool,
    as_csv: bool,
    to: Path | None,
) -> None:
    """Compare runs: their joint front, who contributes what, the hypervolume that each has gained."""
    from rich.console import Console

    from sweeper import compare as comparison
    from sweeper.report.files import stage_named
    from sweeper.run import Run

    found = [Run.find(name, runs) for name in names]
    asked = None if stage is None else stage_named(stage)
    content = comparison.compare(found, metrics.split(",") if metrics else (), asked)
    if to is not None:
        from sweeper.report.compare import write_comparison

        write_comparison(content, to)
    if as_json:
        click.echo(json.dumps(content, indent=1, allow_nan=False))
    elif as_csv:
        click.echo(comparison.to_csv(content), nl=False)
    else:
        Console().print(comparison.compare_table(content))
        if to is not None:
            click.echo(f"written to {to}")


@main.command()
@RUN
@RUNS
@CLUSTER
def status(run: str | None, runs: Root) -> None:
    """Show how far a run is; list the runs."""
    from sweeper.plan import print_status
    from sweeper.run import Run

    print_status(Run.find(run, runs), Run.all(runs))


@main.command()
@RUN
@RUNS
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@CLUSTER
def logs(run: str | None, runs: Root, follow: bool) -> None:
    """Print what a run has said so far."""
    from sweeper.plan import log_lines
    from sweeper.run import Run

    for line in log_lines(Run.find(run, runs), follow=follow):
        click.echo(line, nl=False)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def down(file: Path) -> None:
    """End the cluster that `ray up` made from FILE: `ray down`, and Ray on hosts of one's own."""
    from sweeper import remote

    sys.exit(remote.down(file))


@main.command()
@RUN
@RUNS
@click.option(
    "--figure",
    "figures",
    metavar="NAME",
    multiple=True,
    help="Write a figure as a file instead: front, reliability, importance, ... as below each in the report.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["pdf", "svg", "png", "html"]),
    multiple=True,
    help="Of figures, pdf by default; without --figure all of them.",
)
@click.option(
    "--table", type=click.Choice(["latex", "markdown", "csv"]), help="Print the Pareto set instead."
)
@click.option(
    "--stage",
    type=click.Choice(["search", "final", "test"]),
    help="Whose numbers: of figures the search's by default, of tables the last's.",
)
@click.option(
    "--trial",
    "trials",
    metavar="ID",
    multiple=True,
    help="The models in figures with a row for each: t003@5, t003, baseline.",
)
@click.option(
    "--to", type=click.Path(path_type=Path), help="Folder, or file for one; RUN/report/figures by default."
)
@CLUSTER
def report(
    *,
    run: str | None,
    runs: Root,
    figures: tuple[str, ...],
    formats: tuple[str, ...],
    table: str | None,
    stage: str | None,
    trials: tuple[str, ...],
    to: Path | None,
) -> None:
    """Write the HTML report; or its figures and tables, for papers."""
    from sweeper.report import write_report
    from sweeper.report.files import Wish, write_figures, write_table
    from sweeper.run import Run

    found = Run.find(run, runs)
    if table is not None:
        if figures or formats or trials:
            raise UserError("--table goes with --stage and --to alone; ask for figures by themselves")
        click.echo(write_table(found, table, stage, to), nl=to is not None)
    elif figures or formats:
        for file, caption in write_figures(found, Wish(figures, formats, stage, trials, to)):
            click.echo(f"{file}\n    {caption}")
    elif stage or trials or to:
        raise UserError("--stage, --trial and --to go with --figure NAME, --format or --table")
    else:
        click.echo(write_report(found))


@main.command()
@click.argument("model")
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
@click.option("--json", "as_json", is_flag=True, help="Write JSON, full precision.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Folder, or .json file, for the results of --data; `evaluations` by default.",
)
def evaluate(
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
    """Measure a model: by strong attacks, on more images, on other data.

    MODEL is a trial of a run after an epoch (t003@5, or t003 for its last kept one), or `baseline`. With
    --data it is an exported folder, hf-hub:ORG/REPO, ARCHITECTURE/TAG of open_clip such as ViT-B-32/openai,
    or clip-tiny; the result is then also written as clip_benchmark writes it, a file per data set.
    """
    from rich.console import Console

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
        _enter(found)
        measurement = evaluation.of_trial(found, model, split, overrides, attacks)
    if sanity:
        findings = measurement.sanity()
        words = {True: "passed", False: "FAILED", None: "not checked"}
        for name, passed, detail in findings:
            click.echo(f"{name}: {words[passed]}: {detail}")
        sys.exit(any(passed is False for _, passed, _ in findings))
    file = measurement.measure()
    written = measurement.write_benchmark(file)
    if as_json:
        click.echo(file.read_text(encoding="utf-8"))
        return
    Console().print(measurement.table(file))
    for each in written:
        click.echo(f"as clip_benchmark: {each}")


@main.command()
@RUN
@RUNS
@click.option(
    "--trial", "trials", metavar="ID", multiple=True, help="As t003@5, t003; the Pareto set by default."
)
@click.option(
    "--to", type=click.Path(path_type=Path), help="Folder for the models' folders; RUN/exports by default."
)
@click.option("--register", "name", help="Also register them in MLflow's model registry, under this name.")
@CLUSTER
def export(run: str | None, runs: Root, trials: tuple[str, ...], to: Path | None, name: str | None) -> None:
    """Write models as folders that open_clip loads, with a model card."""
    from sweeper.export import exported
    from sweeper.run import Run

    found = Run.find(run, runs)
    for point, folder in exported(found, trials, to):
        click.echo(f"{point.id}: {folder}")
        if name is not None:
            from sweeper.registry import register

            click.echo(f"{point.id}: {register(found, point, folder, name)}")


@main.command()
@RUN
@RUNS
@CLUSTER
def track(run: str | None, runs: Root) -> None:
    """Deliver to MLflow what it does not have yet."""
    from sweeper.run import Run
    from sweeper.tracking import Mirror, trouble

    found = Run.find(run, runs)
    try:
        Mirror(found).deliver()
    except Exception as error:  # whatever a server or its client raises
        raise UserError(trouble(found, error)) from error


@main.command()
@RUN
@RUNS
@click.option("--port", default=5000, show_default=True)
def ui(run: str | None, runs: Root, port: int) -> None:
    """Open MLflow's web page on a run."""
    from sweeper.redact import redacted
    from sweeper.run import Run
    from sweeper.tracking import tracking_uri

    uri = tracking_uri(Run.find(run, runs))
    if uri.startswith(("http:", "https:")):
        click.launch(redacted(uri))
        click.echo(redacted(uri))
        return
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    click.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)")
    # not as an argument, which everybody on the machine can read
    own = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    sys.exit(subprocess.call(command, env={**os.environ, **own}))
>>>>>>> api
