"""Datalist files: a divided datalist as JSON that MONAI's own loader reads, and its fingerprint."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cleft_bundle.data.item import Item, changed
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.files import parse_object, read_object, replacing

logger = logging.getLogger(__name__)

#: Keys of the file, and the splits they stand for.
KEYS = {"training": "train", "validation": "validation", "test": "test"}

#: Items of which a file is still written as plain text; CheXpert's 191,000 would fill 121 MB a run.
PLAIN = 20_000

_REQUIRED = ("image", "name", "caption", "label", "patient_id")
_PSEUDONYM = re.compile("[0-9a-f]{16}")


def fingerprint(splits: Mapping[str, Sequence[Item]], labels: bool = False) -> str:
    """Identify a divided datalist.

    Args:
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        labels: tell apart what differs in labels only, too.

    Returns:
        SHA-256 (64 hexadecimal digits) over the sorted names, splits and captions. Names are relative to the set's
        root, so it is the same on every machine and in every order of the rows.

    Examples:
        >>> splits = {"train": [{"name": "a", "caption": "normal"}], "validation": [{"name": "b", "caption": "edema"}]}
        >>> fingerprint(splits) == fingerprint({name: splits[name] for name in reversed(splits)})
        True
        >>> len(fingerprint(splits))
        64
    """
    lines = sorted(
        json.dumps([item["name"], split, item["caption"], *(item["label"] if labels else ())])
        for split, items in splits.items()
        for item in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_datalist(
    splits: Mapping[str, Sequence[Item]], path: str | Path, root: str | Path, classes: Sequence[str]
) -> Path:
    """Write a divided datalist as JSON, for :func:`read_datalist` and ``monai.data.load_decathlon_datalist``.

    The keys are "training", "validation" and "test", each with one item per line, besides "classes" and "fingerprint".
    Images below ``root`` are relative to it: that is the loader's ``base_dir``. An unknown label is null. As the items
    themselves, the file holds pseudonyms and no patient's identifier.

    Above :data:`PLAIN` items the file is packed by gzip, a twentieth of the size, and its name ends in ``.gz`` besides:
    :func:`read_datalist` takes either name, MONAI's loader needs it unpacked. A file of the other kind that an earlier
    run left under that name is removed.

    Args:
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        path: the file; its folder is made where it is missing.
        root: the folder of the set, or a table in it.
        classes: names of the labels.

    Returns:
        the file that was written.
    """
    encode = json.JSONEncoder(allow_nan=False).encode
    within = os.path.join(_folder(root), "")
    lists = {key: ",\n".join(encode(_portable(item, within)) for item in splits[split]) for key, split in KEYS.items()}
    head = {"classes": list(classes), "fingerprint": fingerprint(splits)}
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    parts += [f"{json.dumps(key)}: [\n{lines}\n]" for key, lines in lists.items()]
    content = ("{\n" + ",\n".join(parts) + "\n}\n").encode()
    plain, packed = Path(path), _packed(path)
    chosen, other = (packed, plain) if sum(map(len, splits.values())) > PLAIN else (plain, packed)
    with replacing(chosen) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if chosen == packed else content)
    other.unlink(missing_ok=True)
    return chosen


def _packed(path: str | Path) -> Path:
    """The name of a file that is packed."""
    return Path(f"{path}.gz")


def _portable(item: Item, within: str) -> dict[str, Any]:
    """The item as a file holds it, its image relative to the folder ``within``, whose separator ends it."""
    return {
        **{key: value for key, value in item.items() if key != "split"},
        "image": item["image"].removeprefix(within).replace(os.sep, "/"),
        "label": [None if math.isnan(value) else value for value in item["label"]],
    }


def read_datalist(path: str | Path | None, root: str | Path, classes: Sequence[str]) -> list[Item]:
    """Read the items of a datalist file, each with its ``split``.

    Args:
        path: a file of :func:`write_datalist`, or one like it, packed or not; where it is not there, the packed one
            beside it. None, as a config has it, is an error.
        root: the folder that its images are relative to.
        classes: names of the labels that the run expects.

    Returns:
        The items as :func:`cleft_bundle.data.make_splits` takes and keeps them. A ``patient_id`` that is no pseudonym
        becomes one.

    Raises:
        BundleError: the file does not exist, is no datalist, has other classes, or items lack what is needed.
    """
    if path is None:
        raise BundleError("datalist_file is not set: pass a file such as the datalist.json of a run's output_dir")
    content = _read(Path(path))
    if content.get("classes") != list(classes):
        raise BundleError(
            f"{path}: its labels are of the classes {content.get('classes')}, the prompts of this run of "
            f"{list(classes)}; add the overlay or the prompt_file that it was written with"
        )
    folder = _folder(root)
    items: list[Item] = []
    for key, split in KEYS.items():
        for number, stored in enumerate(content.get(key, []), start=1):
            lacking = [name for name in _REQUIRED if not isinstance(stored, dict) or name not in stored]
            if lacking:
                raise BundleError(f"{path}: item {number} of '{key}' has no {', '.join(lacking)}")
            items.append(
                changed(
                    stored,
                    image=os.path.join(folder, stored["image"]),
                    label=[math.nan if value is None else float(value) for value in stored["label"]],
                    patient_id=_as_pseudonym(str(stored["patient_id"])),
                    split=split,
                )
            )
    found = fingerprint({split: [item for item in items if item["split"] == split] for split in KEYS.values()})
    if content.get("fingerprint") != found:
        logger.warning("%s: the file has been changed since it was written: its fingerprint is another", path)
    return items


def _folder(root: str | Path) -> Path:
    """The folder of a set whose root is a folder or, as for a hospital's own images, a table."""
    root = Path(root).absolute()
    return root.parent if root.is_file() else root


def _as_pseudonym(value: str) -> str:
    return value if _PSEUDONYM.fullmatch(value) else pseudonym(value)


def _read(path: Path) -> dict[str, Any]:
    packed = path if path.suffix == ".gz" else _packed(path)
    name = f"datalist_file: {path}"
    if packed.is_file() and (packed == path or not path.is_file()):
        try:
            content = parse_object(gzip.decompress(packed.read_bytes()).decode(), name)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise BundleError(f"{name} cannot be read: {one_line(error)}") from error
    else:
        content = read_object(path, name, "; training writes one as output_dir/datalist.json")
    if "training" not in content:
        raise BundleError(f"{path}: expected an object with the keys {', '.join(KEYS)}")
    return content
