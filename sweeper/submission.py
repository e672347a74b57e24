"""A sweep as a Ray job: its driver runs on the cluster, and whoever started it can leave."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from sweeper import pages
from sweeper.cluster import QUIET
from sweeper.errors import UserError
from sweeper.head import refused
from sweeper.redact import one_line, redacted
from sweeper.run import Run

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DASHBOARD = "http://127.0.0.1:8265"  # the head's, on which Ray takes jobs; it listens on loopback only


def connect() -> JobSubmissionClient:
    """Ray's job server on this machine, whose cluster RAY_ADDRESS names from then on. Raises UserError if Ray
    isn't up here or refuses the token."""
    os.environ["RAY_ADDRESS"] = DASHBOARD  # which Ray prefers to its argument
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(DASHBOARD)
        client.list_jobs()
    except ConnectionError:
        raise UserError(
            "no Ray answers here: this is no cluster's head, or its Ray has ended; "
            "`ray up` on the laptop starts it",
            pages.CLUSTERS,
        ) from None
    except AuthenticationError:
        raise UserError(refused("of this machine"), pages.CLUSTERS) from None
    except RuntimeError as error:
        raise UserError(f"Ray takes no jobs: {one_line(error)}", pages.CLUSTERS) from None
    os.environ["RAY_ADDRESS"] = "auto"
    return client


def submit(run: Run, client: JobSubmissionClient) -> str:
    """Starts a job that drives what is left of the run, and returns the job's id. Raises UserError if it is
    being driven, or submitted by another."""
    if run.is_driven():
        raise UserError(f"{run.name} is being run by another process; stop that one first", pages.DRIVERS)
    known = [job.submission_id or "" for job in client.list_jobs()]
    attempt = sum(name.startswith(f"{run.id}.") for name in known) + 1
    try:
        job: str = client.submit_job(
            entrypoint=f"exec {shlex.join([sys.executable, '-m', 'sweeper', 'resume', str(run)])}",
            submission_id=f"{run.id}.{attempt}",
            runtime_env={"env_vars": QUIET},
        )
    except RuntimeError as error:  # of two at once the second one's id is taken
        reason = redacted(str(error).strip().splitlines()[-1])  # below the server's traceback
        raise UserError(f"Ray does not take {run.id} as a job: {reason}") from None
    run.log(f"submitted as Ray job {job}")
    return job
