"""Memory that a process may still take: what the machine has, within the limits of the groups that it runs in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

#: By version of control groups, the files of a limit and of what is used, and the line of what can be taken back.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken, of the machine and of each control group above this process (containers, SLURM).

    Args:
        root: of the file system.
    """
    return min([psutil.virtual_memory().available, *_of_groups(root)])


def _of_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, names = (mount, _V2) if not controllers else (mount / "memory", _V1)
        folder = base / path.strip("/")
        for group in (folder, *folder.parents):
            if (group / names[0]).is_file():
                yield from _of_group(group, *names)
            if group == base:
                break


def _of_group(group: Path, limit: str, used: str, reclaimable: str) -> Iterator[int]:
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return
        lines = dict(line.split(maxsplit=1) for line in (group / "memory.stat").read_text().splitlines())
        yield max(0, int(most) - int((group / used).read_text()) + int(lines.get(reclaimable, 0)))
    except (OSError, ValueError):  # a group that is about to go
        return
