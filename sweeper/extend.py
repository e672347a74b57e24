"""More budget for a run, finished or not; everything else of it stays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sweeper import pages, spec
from sweeper.errors import SpecError, UserError
from sweeper.files import read_json
from sweeper.run import Run
from sweeper.spec import SweepSpec

BUDGET = ("search.trials", "search.budget")


def extend(run: Run, overrides: Sequence[str]) -> Run:
    """The run with another budget, as KEY=VALUE of `search.trials` and `search.budget`. It goes on with the
    same study and the next trial numbers, and what its result was before is kept as `pareto-1.json`, ...

    Raises SpecError or UserError with one line, the run unchanged.
    """
    for each in overrides:
        key = each.partition("=")[0].strip()
        if key not in BUDGET and not key.startswith(f"{BUDGET[1]}."):
            raise SpecError([f"--set {each}: only the budget of a run may change, {' and '.join(BUDGET)}"])
    with run.driving():
        new, started = spec.load(run.path / "sweep.yaml", overrides=overrides), len(run.trials())
        if new.file.search.trials < started:
            raise UserError(
                f"{run.name}: search.trials: {started} trials were started already; give at least {started}",
                pages.SWEEP_FILE,
            )
        before, after = settings(run.spec), settings(new)
        if before != after:
            earlier = run.about.get("extended", [])
            when = datetime.now().strftime("%Y%m%d-%H%M%S")
            change = {"when": when, "trials": started, "from": before, "to": after}
            run.write("run.json", {**run.about, "extended": [*earlier, change]})
            result = run.path / "pareto.json"
            if result.is_file():
                run.write(f"pareto-{len(earlier) + 1}.json", read_json(result))
                run.storage.remove(result)
            run.write_sweep(new)  # last: it is what counts
    return Run.load(run.storage)


def settings(sweep: SweepSpec) -> dict[str, Any]:
    """What of a sweep can be extended."""
    return {"trials": sweep.file.search.trials, "budget": sweep.file.search.budget.given()}
