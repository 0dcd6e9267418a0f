"""Images as somebody hands them to a function: paths, folders, DICOM datasets, arrays."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from PIL import Image

from cleft_bundle.data.dicom.writing import write_dicom
from cleft_bundle.data.image_lists import list_images
from cleft_bundle.data.quiet import quiet
from cleft_bundle.errors import BundleError, RadiographError
from cleft_bundle.names import printable


@dataclass(frozen=True)
class GivenImage:
    """An image by the name that results have for it.

    Args:
        name: the path as it was given, or "image 1" and so on for what is no file: nothing of a header.
        path: of the file; None for what is in memory.
        write: writes what is in memory as a file.
    """

    name: str
    path: str | None = None
    write: Callable[[Path], None] | None = None


def given_images(images: Any) -> list[GivenImage]:
    """List what was handed over.

    Args:
        images: the path of a file or a folder, which is listed as :func:`cleft_bundle.data.list_images` does; a
            pydicom dataset; an array [H, W] or [H, W, 3] of numbers, in which bright is dense; or a list of them.

    Raises:
        BundleError: where there is nothing, or it is none of these.
    """
    whole = [images] if _is_one(images) else images
    if not isinstance(whole, Sequence):
        raise BundleError(f"images: expected a path, a DICOM dataset, an array or a list of them, got {_kind(images)}")
    found: list[GivenImage] = []
    for one in whole:
        found += _of(one, len(found) + 1)
    if not found:
        raise BundleError("images: the list is empty")
    return found


@contextmanager
def as_files(images: Sequence[GivenImage]) -> Iterator[list[str]]:
    """Give the path of each image; what is in memory lies in a folder of its own until the end."""
    with ExitStack() as stack:
        folder: Path | None = None
        paths = []
        for number, image in enumerate(images):
            if image.write is None:
                paths.append(str(image.path))
                continue
            folder = folder or Path(stack.enter_context(TemporaryDirectory(prefix="cleft_")))
            paths.append(str(folder / str(number)))
            image.write(Path(paths[-1]))
        yield paths


def _is_one(images: Any) -> bool:
    return isinstance(images, str | os.PathLike | pydicom.Dataset | np.ndarray)


def _of(one: Any, number: int) -> list[GivenImage]:
    if isinstance(one, str | os.PathLike):
        path = os.fspath(one)
        if os.path.isdir(path):
            return [GivenImage(item["path"], item["image"]) for item in list_images(str(path))]
        return [GivenImage(printable(str(path)), os.path.abspath(str(path)))]
    if isinstance(one, pydicom.Dataset):
        return [GivenImage(f"image {number}", write=lambda file: _write_dataset(one, file, f"image {number}"))]
    if isinstance(one, np.ndarray):
        return [GivenImage(f"image {number}", write=_array_writer(one, f"image {number}"))]
    raise BundleError(f"images: expected a path, a DICOM dataset or an array, got {_kind(one)}")


def _write_dataset(dataset: pydicom.Dataset, file: Path, name: str) -> None:
    """Write a dataset as a file; the error stands alone, as one of pydicom quotes the header."""
    try:
        with quiet(), pydicom.config.disable_value_validation():
            own = copy.copy(dataset)  # writing fills in the meta information
            own.file_meta = copy.deepcopy(dataset.file_meta)
            write_dicom(own, file)
    except Exception:
        wrong = f"{name}: the DICOM dataset cannot be written as a file: pixels and file_meta are needed"
    else:
        return
    raise RadiographError(wrong)


def _array_writer(array: np.ndarray, name: str) -> Callable[[Path], None]:
    """What writes an array without loss: 8 and 16 bits as PNG, other numbers as TIFF of float32."""
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (array.ndim == 2 or colour) or array.size == 0 or array.dtype.kind not in "buif":
        raise BundleError(f"{name}: expected numbers [H, W], or uint8 [H, W, 3], got {array.dtype} {array.shape}")
    lossless = array.dtype in (np.uint8, np.uint16)
    picture = Image.fromarray(np.ascontiguousarray(array if lossless else array.astype(np.float32)))
    return lambda file: picture.save(file, format="PNG" if lossless else "TIFF")


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
