"""The files below a folder, and where a table's images lie among them.

Tables of public sets name their images with the leading folders of their makers' machines, and downloads add or leave
out others. Listing the folder once answers for all of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


class FileTree:
    """The files below a folder, listed once; hidden ones are left out, links are followed.

    Args:
        root: the folder; one that does not exist holds no files.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(Path(root).absolute())
        #: From the path of each file below the root, with forward slashes, to its name.
        self.files: dict[str, str] = {}
        seen: set[tuple[int, int]] = set()  # a link to a folder above it would never end
        for place, folders, names in os.walk(self.root, followlinks=True):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inner = os.path.relpath(place, self.root).replace(os.sep, "/")
            for name in names:
                if not name.startswith("."):
                    self.files[name if inner == "." else f"{inner}/{name}"] = name

    def locate(self, paths: Sequence[str]) -> list[str]:
        """Find the files that a table means.

        Args:
            paths: paths of a table, in which leading folders may be too many, too few or others than below the root.

        Returns:
            For each the path below the root of the file that shares the most trailing parts with it: the name and the
            folder around it at least, or the name alone where the table has no more. A path without such a file, or
            with several that fit alike, keeps its own parts but for the leading folders that differ in most others.
        """
        by_name: dict[str, list[str]] = {}
        for file, name in self.files.items():
            by_name.setdefault(name, []).append(file)
        split = [[part for part in path.replace("\\", "/").split("/") if part not in ("", ".")] for path in paths]
        found: list[str | None] = []
        leading: Counter[tuple[int, tuple[str, ...]]] = Counter()
        for parts in split:
            shared = {file: _shared(file.split("/"), parts) for file in by_name.get(parts[-1] if parts else "", ())}
            longest = max(shared.values(), default=0)
            best = [file for file, length in shared.items() if length == longest]
            if len(best) != 1 or longest < min(2, len(parts)):
                found.append(None)
                continue
            found.append(best[0])
            leading[len(parts) - longest, tuple(best[0].split("/")[:-longest])] += 1
        surplus, prefix = leading.most_common(1)[0][0] if leading else (0, ())
        names = []
        for match, parts in zip(found, split, strict=True):
            likely = "/".join([*prefix, *parts[min(surplus, len(parts) - 1) :]])
            names.append(match or ("/".join(parts) if likely in self.files else likely))  # there, but not the only one
        return names


def _shared(file: Sequence[str], path: Sequence[str]) -> int:
    """How many trailing parts are equal."""
    count = 0
    for ours, theirs in zip(reversed(file), reversed(path), strict=False):
        if ours != theirs:
            break
        count += 1
    return count
