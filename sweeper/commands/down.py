"""`sweeper down`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sweeper.options import examples


@click.command(epilog=examples("sweeper down cluster.yaml"))
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """End the cluster that `ray up` made from FILE.

    As `ray down`, and Ray on hosts of one's own is ended too.
    """
    from sweeper import remote

    sys.exit(remote.down(file))
