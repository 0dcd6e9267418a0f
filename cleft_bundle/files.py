"""Writing files at once or not at all; reading checkpoints and JSON."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.secrets import masked


def save(content: Any, path: str | Path) -> None:
    """Write a file of tensors under a temporary name and rename it: a killed run leaves the old file."""
    _replace(path, lambda file: torch.save(content, file))


def save_text(text: str, path: str | Path) -> None:
    """Write a text in UTF-8 as :func:`save` does; credentials in it are masked."""
    _replace(path, lambda file: file.write(masked(text).encode()))


def save_arrays(arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Write arrays as a compressed ``.npz`` as :func:`save` does."""
    _replace(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]  # its stubs see allow_pickle


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path beside a file to write to; at the end it takes the file's place, and after an error it is removed.

    Args:
        path: the file; its folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing.{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _replace(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    with replacing(path) as temporary:
        with temporary.open("xb") as file:
            write(file)
        temporary.chmod(0o644)


def load(path: str | Path, made_by: str) -> Any:
    """Read a checkpoint on the CPU, weights only: no code in the file is run.

    Args:
        path: the file.
        made_by: how such a file comes into being, for the error message.

    Raises:
        BundleError: where the file does not exist or is no checkpoint.
    """
    if not Path(path).is_file():
        raise BundleError(f"checkpoint {path} does not exist: {made_by}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise BundleError(f"checkpoint {path} cannot be read: {one_line(error)}") from error


def read_object(path: str | Path, name: str | None = None, hint: str = "") -> dict[str, Any]:
    """The JSON object of a file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        name: what error messages begin with; the path by default.
        hint: what the message says further where there is no such file.

    Raises:
        BundleError: where the file does not exist or cannot be read, or as of :func:`parse_object`.
    """
    name = str(path) if name is None else name
    if not Path(path).is_file():
        raise BundleError(f"{name} does not exist{hint}")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BundleError(f"{name} is no JSON: expected UTF-8 text") from error
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {one_line(error.strerror)}") from error
    return parse_object(text, name)


def parse_object(text: str, name: str) -> dict[str, Any]:
    """The JSON object that a text is.

    Args:
        text: JSON.
        name: what error messages begin with.

    Raises:
        BundleError: where the text is no JSON or no object, or a key of an object is repeated, which readers of JSON
            let pass.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise BundleError(f"{name}: key '{next(key for key in keys if keys.count(key) > 1)}' is repeated")
        return found

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise BundleError(f"{name} is no JSON: line {error.lineno}, {error.msg}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{name}: expected a JSON object, got {type(content).__name__}")
    return content


def given_object(given: str, name: str) -> dict[str, Any]:
    """A JSON object that was typed in, or that of the file which was named.

    Args:
        given: the object, which begins with a brace, or a path.
        name: what error messages begin with.

    Raises:
        BundleError: where it is neither.
    """
    if given.lstrip().startswith("{"):
        return parse_object(given, f"{name}: {one_line(given, 60)}")
    if not Path(given).is_file():
        raise BundleError(f"{name}: there is no file {given}; expected one, or a JSON object")
    return read_object(given, f"{name}: {given}")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        BundleError: where there is no such file.
    """
    if not Path(path).is_file():
        raise BundleError(f"{path} does not exist")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stamp(path: str | Path, *, inode: bool = False) -> str:
    """Stamp that changes when a file does: its size in bytes and its time of modification in ns, such as ``512-17``.

    Args:
        path: the file.
        inode: add the number of its inode, which changes when another file takes its place.

    Returns:
        the stamp; "" where there is no file.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}" + (f"-{status.st_ino}" if inode else "")
