"""MLflow as a mirror of the run folder.

The folder is the truth, and the spool: what a server misses while it is away lies there as it lies there
anyway, for as long as it takes. `Mirror.deliver` sends what MLflow does not have: while the sweep runs, after
a resume, or by `sweeper track RUN`.

    server.py    where MLflow is, and what a user is told if it does not answer
    ledger.py    which runs it has of a sweep, and what of each has arrived
    mirror.py    what is sent, and in which order
    metrics.py   what numbers are called there, and when they were measured
    entities.py  images as its data sets, the Pareto set as its models
    notes.py     what is written about a run, in Markdown
    views.py     its page with our columns, filters and charts
    links.py     where its page shows what
    tracker.py   deliveries in the background of a sweep

One parent run per sweep, one child per trial, and one for the untrained model.
"""

from sweeper.tracking.links import lines
from sweeper.tracking.mirror import Mirror
from sweeper.tracking.server import tracking_uri, trouble
from sweeper.tracking.tracker import Tracker

__all__ = ["Mirror", "Tracker", "lines", "tracking_uri", "trouble"]
