"""The images that a folder, a list, a table or a DICOMDIR names, to be read."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from cleft_bundle.data import tables
from cleft_bundle.data.images.file_trees import walk
from cleft_bundle.errors import BundleError
from cleft_bundle.names import printable

logger = logging.getLogger(__name__)


def list_images(source: str | None, exclude: Sequence[str] = ("DICOMDIR",)) -> list[dict[str, str]]:
    r"""List the images that a folder or a file names.

    ``source`` is one of

    - a folder: every regular file below it, whatever its suffix, links followed and each file once; hidden files and
      folders are left out. The log counts what is (:func:`cleft_bundle.data.images.file_trees.walk`);
    - a ``.txt``, one path a line; blank lines are passed over;
    - a ``.json``, a list of paths;
    - a ``.csv`` with a column ``image``;
    - a DICOMDIR (PS3.10 section 8), whatever it is called: the files of its image records.

    Paths in a file are relative to its folder, or absolute. A path that a file names twice is listed once. Whether the
    listed files exist is not asked: reading them will tell.

    Args:
        source: the folder or file; None where nobody has named one, which is an error.
        exclude: shell patterns of file names that a folder's listing leaves out.

    Returns:
        items: ``image``, the absolute path, and ``path``, the path below the folder with forward slashes, or as the
        file has it. A file's name that is no UTF-8 is there as :func:`cleft_bundle.names.printable` has it. Those of a
        folder are sorted by ``path``, those of a file are in its order.

    Raises:
        BundleError: where there is no such source, it is none of the above, or it names no image.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("list.txt").write_text("first.dcm\nsecond.dcm\n")
        >>> _ = [Path(name).touch() for name in ("first.dcm", "second.dcm")]
        >>> [Path(item["image"]).name for item in list_images("list.txt")]
        ['first.dcm', 'second.dcm']
    """
    if source is None:
        raise BundleError("dataset_dir is not set: pass the folder of the images with --dataset_dir")
    place = Path(source).expanduser().absolute()
    if place.is_dir():
        items = _of_folder(place, exclude)
    elif place.is_file():
        items = _of_paths(place, _named_by(place))
    else:
        raise BundleError(f"{source}: a folder of images is expected, or a file that lists them, and there is none")
    if not items:
        raise BundleError(f"{source}: {'holds no file to read' if place.is_dir() else 'names no image'}")
    return items


def _of_folder(folder: Path, exclude: Sequence[str]) -> list[dict[str, str]]:
    found = walk(folder, exclude).once()
    if told := found.told():
        logger.info("%s: %d files; left out: %s", folder, len(found.files), told)
    return [{"image": os.path.join(folder, path), "path": printable(path)} for path in found.files]


def _of_paths(source: Path, paths: Sequence[str]) -> list[dict[str, str]]:
    items: dict[str, str] = {}
    for path in paths:
        items.setdefault(os.path.normpath(source.parent / path), path)
    if len(items) < len(paths):
        logger.info("%s: %d paths, of which %d are different", source.name, len(paths), len(items))
    return [{"image": image, "path": printable(path)} for image, path in items.items()]


def _named_by(file: Path) -> Sequence[str]:
    kind = file.suffix.lower()
    if kind == ".csv":
        column = tables.read_table(file, ["image"])["image"]
        tables.no_gaps(column, file)
        return list(column)
    if kind == ".txt":
        return [line.strip() for line in _text(file).splitlines() if line.strip()]
    if kind == ".json":
        return _of_json(file)
    return _of_dicomdir(file)


def _of_json(file: Path) -> list[str]:
    try:
        paths = json.loads(_text(file))
    except ValueError as error:
        raise BundleError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise BundleError(f'{file}: expected a list of paths, such as ["a.dcm", "b.png"]')
    return paths


def _of_dicomdir(file: Path) -> list[str]:
    """The paths of a DICOMDIR's image records; pydicom's FileSet would leave out those that are missing."""
    records: list[Any] = []
    kind: Any = None
    with warnings.catch_warnings(), suppress(Exception):  # pydicom raises many kinds, and quotes the file's values
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(file, specific_tags=["DirectoryRecordSequence"])
        kind = ds.file_meta.get("MediaStorageSOPClassUID")
        records = [r for r in ds.get("DirectoryRecordSequence", ()) if r.get("DirectoryRecordType") == "IMAGE"]
    if kind != MediaStorageDirectoryStorage:
        raise BundleError(f"{file}: expected a folder, a .txt, .json or .csv that lists images, or a DICOMDIR")
    ids = [record.get("ReferencedFileID") for record in records]
    return ["/".join([parts] if isinstance(parts, str) else parts) for parts in ids if parts]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BundleError(f"{file}: expected UTF-8 text, found another encoding at byte {error.start}") from error
