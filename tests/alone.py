"""Runs a sweep in this process, one job after another, without Ray: the same work, in the order in which one
worker has it. For notebooks that tests execute, where to start a cluster takes longer than the sweep.

    from tests.alone import install
    install()
"""

from __future__ import annotations

from itertools import count

from sweeper import result, runner, search
from sweeper.budget import Clock
from sweeper.jobs import Jobs
from sweeper.run import Run
from sweeper.tune import Searcher
from sweeper.worker import Measurement


def install() -> None:
    """From here on `Sweep.run` does not ask for a cluster."""
    runner.drive = drive  # type: ignore[assignment]
    runner.Cluster.check = staticmethod(lambda _: None)  # type: ignore[method-assign]


def drive(run: Run, **_: bool) -> Run:
    """As `runner.drive`, of a sweep without early stopping."""
    concurrent = run.concurrency(run.spec.file.search.concurrent or 1)
    asked = search.of_run(run, concurrent)
    searcher = Searcher(run, asked, Jobs(run, threads=1, concurrent=concurrent), Clock(run))
    for name in map(str, count()):
        job = searcher.suggest(name)
        if searcher.finished:
            break
        assert isinstance(job, dict), job
        trainable = run.spec.trainable
        doing = Measurement(trainable, job["measure"]) if "measure" in job else trainable.start(job)
        report = doing.step()
        while not report["done"]:
            searcher.on_trial_result(name, report)
            report = doing.step()
        searcher.on_trial_complete(name, report)
        if searcher.broken:
            raise searcher.broken
    asked.finish()
    run.write("pareto.json", result.result(run))
    return run
