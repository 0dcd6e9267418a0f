"""The place of an export: written whole or not at all, and never over something that is no export."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cleft_bundle.errors import BundleError

#: What every folder of an export holds: the description of the classifier or of the image's preparation, as JSON.
DESCRIPTION = "cleft.json"


def check_place(path: Path) -> None:
    """Refuse to replace a folder that is not an export.

    Raises:
        BundleError: names the folder.
    """
    if path.is_dir() and not (path / DESCRIPTION).is_file():
        raise BundleError(f"{path} is a folder without {DESCRIPTION}, so no export: name another place")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write an export to, which takes its place when the block ends without an error.

    Args:
        path: of the file or folder; an earlier export of the name is replaced.

    Yields:
        a path of the same name in a temporary folder beside it, as archives keep the name that they were written under.

    Raises:
        BundleError: where a folder of the name is no export.
    """
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing.") as folder:
        yield Path(folder, path.name)
        if path.is_dir():
            path.rename(Path(folder, "former"))
        Path(folder, path.name).replace(path)
