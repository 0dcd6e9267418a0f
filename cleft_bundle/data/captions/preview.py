"""Captions of a few items beside what they were written from, for whoever edits a prompt file."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError, nearest

_SHOWN = {"view": "view", "laterality": "side"}


def items_of(config_file: str | Sequence[str], override: Mapping[str, Any]) -> list[Item]:
    """List the items of a training config; no image is read.

    Args:
        config_file: path of one config, or paths of several, where later ones override earlier ones.
        override: values by config id, such as ``dataset_dir``.

    Returns:
        What the config's ``items`` gives.

    Raises:
        BundleError: a file does not exist, an id is unknown, ``items`` or ``dataset_dir`` is missing, or the data are
            not as their adapter expects; names it.
    """
    files = [config_file] if isinstance(config_file, str) else list(config_file)
    for file in files:
        if not Path(file).is_file():
            raise BundleError(f"config_file: there is no file '{file}'")
    parser = ConfigParser()
    parser.read_config(files)
    for key, value in override.items():
        if key not in parser:
            raise BundleError(f"unknown config id '{key}'{nearest(key, parser.get())}")
        parser[key] = value
    if "items" not in parser:
        raise BundleError(f"config_file: {', '.join(files)} define no 'items'")
    if "dataset_dir" in parser and parser["dataset_dir"] is None:
        raise BundleError("dataset_dir is not set: pass the folder of the images with --dataset_dir")
    items: list[Item] = parser.get_parsed_content("items")
    return items


def preview(items: Sequence[Mapping[str, Any]], count: int = 20, seed: int = 0) -> str:
    """Show the captions of some items.

    Args:
        items: of a ``datalist`` function.
        count: how many are drawn; all where there are fewer.
        seed: decides which are drawn.

    Returns:
        Lines of text: each item's number and name; its findings that are present, its view and side where known; its
        captions. Nothing of the patient but what the captions say.
    """
    drawn = sorted(random.Random(seed).sample(range(len(items)), min(count, len(items))))  # noqa: S311 - no secret
    lines = [f"{len(drawn)} of {len(items)} items"]
    for place in drawn:
        item = items[place]
        present = [name for name, value in item.get("findings", {}).items() if value == 1]
        row = {"findings": ", ".join(present)} | {word: item.get(key) for key, word in _SHOWN.items()}
        lines += ["", f"{place + 1}  {item['name']}"]
        lines.append("   row:     " + ("; ".join(f"{word} {value}" for word, value in row.items() if value) or "-"))
        lines += [f"   caption: {caption}" for caption in item.get("captions", [item["caption"]])]
    return "\n".join(lines)
