"""Runs a sweep: the flow from a validated file to the Pareto set, on Ray Tune.

Everything that happened is in the run folder, so a resumed run takes the same way as a new one and
finds part of the work done.
"""

from __future__ import annotations

import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from sweeper import kept, result, space, storage, warm
from sweeper.budget import Clock
from sweeper.cluster import Cluster
from sweeper.display import Display
from sweeper.errors import Exit
from sweeper.limits import space_needed
from sweeper.run import Run
from sweeper.spec import SweepSpec
from sweeper.storage import Root

PACKAGES = ("torch", "open_clip_torch", "ray", "optuna", "mlflow", "clip-sweeper")


def start(sweep: SweepSpec, root: Root) -> Run:
    """A new run folder for a sweep whose data, weights and resources are there.

    Raises UserError if they are not.
    """
    storage.check(root)
    earlier = [Run.find(name, root) for name in sweep.file.search.warm_start]
    preflight(sweep)
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    about = {"seed": sweep.file.search.seed, "directory": str(Path.cwd()), "versions": versions}
    known = warm.collect(sweep, earlier) if earlier else None  # once: a resumed run knows the same
    return Run.create(root, sweep, about, known)


def preflight(sweep: SweepSpec) -> None:
    """Checks every model and data set that the space can choose, and that a trial fits on the cluster, before
    anything starts."""
    Cluster.check(sweep.file.resources)
    seen = []
    for probe in space.probes(sweep.space):
        trial = sweep.trial(probe.value)
        needs = {key: trial.get(key) for key in ("model", "data", "method")}
        needs["method"] = (needs["method"] or {}).get("name")
        if needs not in seen:
            seen.append(needs)
            sweep.trainable.check(trial, [sweep.evaluation, sweep.final])


def drive(run: Run, *, quiet: bool = False) -> Run:
    """Runs what is left of a sweep: the untrained model, the search, the Pareto set on the test
    images, the report. Raises KeyboardInterrupt after Ctrl-C or SIGTERM; what was done is on disk and
    `drive` goes on from it."""
    from sweeper.tracking import Tracker

    sweep = run.spec
    sweep.trainable.check_unchanged(sweep.base_trial(), sweep.evaluation, run.sets("validation"))

    def say(line: str) -> None:
        print(line, flush=True)
        run.log(line)

    for line in sweep.trainable.steps(sweep.probes())[1]:
        say(line)
    connected = Cluster.connect(sweep.file.resources, say)
    with sigterm_as_interrupt(), space_needed(run), run.driving(), logged(run), connected as cluster:
        search = sweep.file.search
        concurrent = run.concurrency(cluster.concurrent(search.concurrent, search.trials))
        display = Display(run, concurrent, Clock(run), quiet=quiet)
        lost = partial(give_up, run, display)
        once_more = sigterm_as_interrupt()  # as Ray has put its own in the place of ours
        with once_more, Tracker(run, display.note) as tracker, display, cluster.watched(lost):
            display.stage("starting workers")
            work(run, cluster, concurrent, display, tracker.notify)
            display.stage("writing the report")
            from sweeper.report import write_report

            content = result.result(run)
            write_report(run, content)
            run.write("pareto.json", content)  # last: the run is complete
            display.stage("finishing MLflow")
    return run


def give_up(run: Run, display: Display) -> None:
    """Ends this process as a kill would: without its cluster's head, Ray hangs wherever it is asked."""
    display.stop()
    display.note(
        f"the Ray cluster of {run.name} is gone: its head does not answer any more, or was started anew; "
        f"what was finished is there, go on with: sweeper resume {run}"
    )
    os._exit(Exit.LOST)


def work(run: Run, cluster: Cluster, concurrent: int, display: Display, notify: Callable[[], None]) -> None:
    """All that needs a model: Ray Tune asks our searcher for jobs until the sweep has none left."""
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler

    from sweeper import halving, search
    from sweeper.jobs import Jobs
    from sweeper.tune import (
        Arrival,
        Breaker,
        Lookout,
        Scheduler,
        Searcher,
        Watcher,
        trial_name,
        user_error,
    )
    from sweeper.worker import Worker

    sweep, stopping = run.spec, halving.of_run(run)
    for trial in run.outlines():
        for each in (trial, *run.seeds(trial)):
            kept.tidy(run, each, run.baseline())
    asked = search.of_run(run, concurrent)
    jobs = Jobs(run, cluster.threads, concurrent)
    searcher = Searcher(run, asked, jobs, display.clock, stopping)
    breaker = Breaker(searcher)
    if not searcher.finished:
        trainable = tune.with_resources(
            Worker, {"cpu": sweep.file.resources.cpus, "gpu": sweep.file.resources.gpus}
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=breaker.guard(searcher),
                scheduler=breaker.guard(Scheduler(run, stopping)) if stopping else FIFOScheduler(),
                num_samples=-1,
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{len(list(run.path.glob('ray/*')))}",
                storage_path=str(run.path / "ray"),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                stop=Arrival(run),
                progress_reporter=tune.CLIReporter(),  # that for notebooks clears what we have said
                callbacks=[
                    breaker.guard(Watcher(run, display, notify, asked.ended)),
                    Lookout(cluster.lacking, display.say),
                    breaker,
                ],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except tune.TuneError as error:
            raise user_error(error) or error from None
        if searcher.broken is not None:
            raise searcher.broken
        if not searcher.finished:
            raise KeyboardInterrupt  # Tune returns normally after Ctrl-C
    asked.finish()
    run.storage.push(run.journal)


@contextmanager
def logged(run: Run) -> Iterator[None]:
    """Says in the run's log how its driver ended."""
    try:
        yield
    except KeyboardInterrupt:
        run.log(f"interrupted; go on with: sweeper resume {run.name}")
        raise
    except Exception as error:
        run.log(f"ended by an error: {error}")
        raise
    run.log("finished")


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Inside, SIGTERM does what Ctrl-C does: Ray Tune handles only the latter. A shell that starts a process
    in the background may have it ignore Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
