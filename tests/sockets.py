"""What a process and those that it started listen on, from /proc."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path


def tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from tree(int(child))


def listening() -> dict[str, str]:
    """The address of each listening TCP socket of the machine, by inode."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A":
                raw = bytes.fromhex(local.split(":")[0])
                raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                found[inode] = socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
    return found


def addresses(pid: int) -> list[str]:
    """Where the process and those that it started listen."""
    known, found = listening(), []
    for each in tree(pid):
        for file in Path(f"/proc/{each}/fd").iterdir():
            try:
                name = os.readlink(file)
            except OSError:  # closed meanwhile
                continue
            if name.startswith("socket:[") and name[8:-1] in known:
                found.append(known[name[8:-1]])
    return found


def is_loopback(address: str) -> bool:
    ip = ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback
