"""A sweep as a Ray job: its driver runs on the cluster, and whoever started it can leave."""

from __future__ import annotations

import shlex
import sys

from sweeper.cluster import QUIET, REFUSED
from sweeper.errors import UserError
from sweeper.run import Run

DASHBOARD = "http://127.0.0.1:8265"  # the head's, on which Ray takes jobs; it listens on loopback only


def submit(run: Run) -> str:
    """Starts a job that drives what is left of the run, and returns the job's id.

    To be called on the cluster's head. Raises UserError if Ray isn't up there or refuses the token.
    """
    from ray.job_submission import JobSubmissionClient

    if run.is_driven():
        raise UserError(f"{run.id} is being run by another process; stop that one first")
    command = [sys.executable, "-m", "sweeper", "resume", str(run.path)]
    try:
        client = JobSubmissionClient(DASHBOARD)
        known = [job.submission_id or "" for job in client.list_jobs()]
        attempt = sum(name.startswith(f"{run.id}.") for name in known) + 1
        job: str = client.submit_job(
            entrypoint=f"exec {shlex.join(command)}",
            submission_id=f"{run.id}.{attempt}",
            runtime_env={"env_vars": QUIET},
        )
    except ConnectionError:
        raise UserError(
            f"no Ray answers at {DASHBOARD}: this is no cluster's head, or its Ray is not up; "
            "on the laptop `ray up` starts it"
        ) from None
    except RuntimeError as error:
        raise UserError(_explained(str(error))) from None
    run.log(f"submitted as Ray job {job}")
    return job


def _explained(error: str) -> str:
    if any(code in error for code in ("401", "403")):
        return REFUSED
    return f"Ray takes no job: {' '.join(error.split())}"
