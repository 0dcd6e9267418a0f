"""Looking at files one by one: what the header says, what the reader makes of the pixels, and why where it cannot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from cleft_bundle.data.dicom import header as dicom_header
from cleft_bundle.data.dicom.upright import upright_turn
from cleft_bundle.data.images.formats import sniff
from cleft_bundle.data.quiet import quiet
from cleft_bundle.data.radiograph_reader import RadiographReader
from cleft_bundle.errors import RadiographError, one_line
from cleft_bundle.progress import bar
from cleft_bundle.transforms import seen_turn

#: Of the table; every value is text, "" where there is nothing to say.
COLUMNS = (
    *("file", "format", "modality", "rows", "columns", "view", "view_source", "laterality", "laterality_source"),
    *("orientation", "turn", "orientation_check", "spacing", "voi", "decoder", "traits", "blank", "duplicate_of"),
    *("duplicate_by", "error"),
)
_SAID = ("modality", "view", "view_source", "laterality", "laterality_source", "traits")
_MANY = 50  # files that take long enough for a progress bar
_BATCH = 1000  # files that processes are started for: as many as one that breaks them may delay


@dataclass
class Look:
    """Result of looking at one file.

    Attributes:
        row: a text for each of :data:`COLUMNS`.
        instance: pseudonym of the SOP instance, or "".
        digest: of the pixels as they are shown, or "" where there is none or they are all equal.
        picture: uint8 [H, W], the image small, or None.
    """

    row: dict[str, str] = field(default_factory=lambda: dict.fromkeys(COLUMNS, ""))
    instance: str = ""
    digest: str = ""
    picture: np.ndarray | None = None


def look_at(path: str, side: int = 0) -> Look:
    """Look at a file.

    Args:
        path: the file.
        side: longer side in pixels of the small picture; 0 for none.

    Returns:
        The row has no ``file``, ``duplicate_of`` and ``duplicate_by`` yet; ``error`` says why it cannot be read.
    """
    look = Look()
    with quiet():  # libraries quote values of the header; what our own warnings say of an image is in its row
        _look_at_header(path, look)
        try:
            reader = RadiographReader()
            image, meta = reader.get_data(reader.read(path))
        except RadiographError as error:
            look.row["error"] = one_line(str(error).removeprefix(f"{path}: "), None)
            return look
    look.row |= {name: str(meta.get(name, "")) for name in _SAID}
    blank = bool(meta["blank"])
    look.row |= {
        **{"rows": str(image.shape[0]), "columns": str(image.shape[1]), "blank": "yes" if blank else ""},
        **{"orientation": meta["patient_orientation"], "turn": upright_turn(meta)},
        "orientation_check": _seen_turn(image, meta),
        **{"spacing": _spacing(meta["original_spacing"]), "voi": meta["voi_applied"]},
        "decoder": str(meta.get("decoder") or {"dicom": "", "nifti": "nibabel"}.get(look.row["format"], "pillow")),
    }
    look.digest = "" if blank else hashlib.blake2b(repr(image.shape).encode() + image.tobytes()).hexdigest()
    look.picture = _small(image, side) if side else None
    return look


def _look_at_header(path: str, look: Look) -> None:
    """What can be said of a file whose pixels may turn out unreadable; that something is wrong, reading will say."""
    try:
        found = sniff(path) or ""
        look.row["format"] = _picture_format(path) if found == "picture" else found
        if found != "dicom":
            return
        ds = dicom_header.read_header(path, pixels=False)
        said = dicom_header.describe(ds)
        look.row |= {name: said[name] for name in _SAID}
        look.row["orientation"] = said["patient_orientation"]
        look.instance = dicom_header.instance(ds)
        look.row |= {"rows": str(int(ds.get("Rows") or 0) or ""), "columns": str(int(ds.get("Columns") or 0) or "")}
    except Exception:  # of any kind, over a broken file
        return


def _picture_format(path: str) -> str:
    with Image.open(path) as picture:
        return str(picture.format).lower()


def _seen_turn(image: np.ndarray, meta: Mapping[str, Any]) -> str:
    """How a radiograph lies by what it shows, taken for a chest or a breast, where its header does not say."""
    breast = meta["modality"] == "MG"
    if meta["patient_orientation"] or meta["blank"] or not (breast or meta["modality"] in ("CR", "DX")):
        return ""
    from_above = meta["view"] not in ("MLO", "ML", "LM", "LMO")
    turn = seen_turn(torch.from_numpy(image)[None], breast, from_above)
    return "upright" if turn == "none" else f"{turn}?"


def _spacing(spacing: np.ndarray) -> str:
    return "" if np.isnan(spacing).any() else " x ".join(f"{float(size):.4g}" for size in spacing)


def _small(image: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
    if max(picture.size) < side:
        square = np.ones((side // max(picture.size),) * 2, np.uint8)  # what a pixel becomes
        return np.kron(np.asarray(picture), square)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def look_at_all(files: Mapping[str, str], side: int, workers: int) -> list[Look]:
    """Look at files, with a progress bar where they are many.

    Args:
        files: from the path of each file to what the table calls it.
        side: see :func:`look_at`.
        workers: processes that read; 0 for none but this one. Where a decoder ends its process, the file is an error
            like others.

    Returns:
        One look a file, in order.
    """
    if not workers:
        looks: Iterator[Look] = (look_at(path, side) for path in files)
    else:
        looks = _in_processes(list(files), side, min(workers, len(files)))
    found = list(bar(looks, "looking", "file", hidden=len(files) < _MANY, total=len(files)))
    for look, name in zip(found, files.values(), strict=True):
        look.row["file"] = name
    return found


def _in_processes(files: list[str], side: int, workers: int) -> Iterator[Look]:
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        with ProcessPoolExecutor(workers) as pool:
            for file, future in zip(batch, [pool.submit(look_at, file, side) for file in batch], strict=True):
                try:
                    yield future.result()
                except BrokenProcessPool:  # which file did it is not known
                    yield _look_alone(file, side)


def _look_alone(file: str, side: int) -> Look:
    with ProcessPoolExecutor(1) as pool:
        try:
            return pool.submit(look_at, file, side).result()
        except BrokenProcessPool:
            look = Look()
            look.row["error"] = "ends the process that decodes it"
            return look


def mark_duplicates(looks: Iterable[Look]) -> list[Look]:
    """Name for each further file of a SOP instance, or of equal pixels, the first one: ``duplicate_of``.

    Args:
        looks: in the order in which one is the first; changed in place.

    Returns:
        The looks; ``duplicate_by`` is "instance", "pixels" or "instance and pixels". Blank images are equal to others
        by chance and count by their instance alone; files that cannot be read do not count.
    """
    first: dict[str, Look] = {}
    looks = list(looks)
    for look in [look for look in looks if not look.row["error"]]:
        named = first.setdefault(f"instance {look.instance}", look) if look.instance else look
        alike = first.setdefault(f"pixels {look.digest}", look) if look.digest else look
        if named is not look:
            both = look.digest and look.digest == named.digest
            look.row |= {"duplicate_of": named.row["file"], "duplicate_by": "instance" + " and pixels" * bool(both)}
        elif alike is not look:
            look.row |= {"duplicate_of": alike.row["file"], "duplicate_by": "pixels"}
    return looks
