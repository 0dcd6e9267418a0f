"""The files below a folder, and where a table's images lie among them.

Tables of public sets name their images with the leading folders of their makers' machines, and downloads add or leave
out others. Listing the folder once answers for all of them.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass
class Walk:
    """Result of :func:`walk`."""

    #: The real path of the folder.
    root: str
    #: From the path of each file below the folder, with forward slashes, to its real path; sorted.
    files: dict[str, str] = field(default_factory=dict)
    #: What was left out, and how often.
    left_out: Counter[str] = field(default_factory=Counter)

    def once(self) -> Walk:
        """The same with one name for each file: that of its own place, where that is among them, or else the first."""
        chosen: dict[str, str] = {}
        for path, real in self.files.items():
            if real not in chosen or real == os.path.join(self.root, *path.split("/")):
                chosen[real] = path
        again = Counter({"further links to a file": len(self.files) - len(chosen)})
        return Walk(self.root, dict(sorted((path, real) for real, path in chosen.items())), self.left_out + again)

    def told(self) -> str:
        """Counts of what was left out in words, such as ``2 hidden, 1 broken links``; "" where nothing was."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())


def walk(root: str | Path, exclude: Sequence[str] = ()) -> Walk:
    """List the regular files below a folder, links to files and folders followed.

    A folder is entered once, however many links lead to it: at its own place, where that is below the root, or else at
    the link that comes first. So a link to a folder above it ends.

    Args:
        root: the folder; one that does not exist holds no files.
        exclude: shell patterns of names of files to leave out.

    Returns:
        The files, and counts of what was left out: hidden files and folders (their names begin with a dot), files
        that ``exclude`` names, links that lead nowhere, further links to a folder, folders that cannot be read, and
        what is no regular file.
    """
    found = Walk(os.path.realpath(root))
    seen: set[str] = set()
    # those that links lead to come last, so that each is met at its own place if it has one
    own, linked = deque([("", found.root)]), deque[tuple[str, str]]()
    while own or linked:
        inner, real = (own or linked).popleft()
        if real in seen:
            found.left_out["further links to a folder"] += 1
            continue
        seen.add(real)
        for entry in _entries(os.path.join(root, inner), found.left_out):
            path = f"{inner}/{entry.name}" if inner else entry.name
            link = entry.is_symlink()
            target = os.path.realpath(entry.path) if link else os.path.join(real, entry.name)
            if entry.name.startswith("."):
                found.left_out["hidden"] += 1
            elif os.path.isdir(entry.path) if link else entry.is_dir():  # the former has no error for endless links
                (linked if link else own).append((path, target))
            elif reason := _refusal(entry, exclude):
                found.left_out[reason] += 1
            else:
                found.files[path] = target
    found.files = dict(sorted(found.files.items()))
    return found


def _entries(folder: str, left_out: Counter[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError:
        left_out["folders that cannot be read"] += 1
        return []


def _refusal(entry: os.DirEntry[str], exclude: Sequence[str]) -> str:
    """Why an entry that is no folder is left out, or ""."""
    if not os.path.isfile(entry.path):
        return "links that lead nowhere" if entry.is_symlink() else "of another kind than files"
    return next((f"named {pattern}" for pattern in exclude if fnmatch(entry.name, pattern)), "")


class FileTree:
    """The files below a folder, listed once; hidden ones are left out, links are followed.

    Args:
        root: the folder; one that does not exist holds no files.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(Path(root).absolute())
        found = walk(self.root)
        #: From the path of each file below the root, with forward slashes, to its name.
        self.files: dict[str, str] = {path: path.rpartition("/")[2] for path in found.files}
        if told := found.told():
            logger.info("%s: %d files; left out: %s", self.root, len(self.files), told)

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
