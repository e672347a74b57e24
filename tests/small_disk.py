"""A file system that is as large as one likes, and seen only by processes that ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


class SmallDisk:
    """A tmpfs at `place` in a mount namespace of its own, which is that of the process started by `created`.

    As root, or where users may have namespaces; see `possible`.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.own_user = [] if os.getuid() == 0 else ["--user"]
        self.pid = 0

    def created(self, size: str) -> list[str]:
        """Before a command: it runs in a new namespace in which the disk is mounted."""
        own = ["--map-root-user"] if self.own_user else []
        mount = 'mount -t tmpfs -o "$0" small "$1" && shift && exec "$@"'
        return [
            "unshare",
            "--mount",
            *self.own_user,
            *own,
            "sh",
            "-c",
            mount,
            f"size={size}",
            str(self.place),
        ]

    def possible(self) -> bool:
        if shutil.which("unshare") is None or shutil.which("nsenter") is None:
            return False
        done = subprocess.run([*self.created("1m"), "true"], capture_output=True, check=False)
        return done.returncode == 0

    @property
    def inside(self) -> list[str]:
        """Before a command: it sees the disk."""
        kept = ["--preserve-credentials"] if self.own_user else []
        enter = ["nsenter", f"--target={self.pid}", "--mount", *self.own_user, *kept]
        return [*enter, "env", f"--chdir={Path.cwd()}"]

    @property
    def seen(self) -> Path:
        """The disk, for those who are outside."""
        return Path(f"/proc/{self.pid}/root{self.place}")

    def limit(self, **options: object) -> None:
        """As size="1m", nr_inodes=100."""
        given = ",".join(f"{name}={value}" for name, value in options.items())
        mount = ["mount", "-t", "tmpfs", "-o", f"remount,{given}", "small", str(self.place)]
        subprocess.run([*self.inside, *mount], check=True)

    def files(self) -> int:
        """How many there are, folders too."""
        now = os.statvfs(self.seen)
        return now.f_files - now.f_ffree
