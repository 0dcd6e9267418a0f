"""``cleft preview``: what a prompt file makes of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cleft_bundle.commands.configs import read_config
from cleft_bundle.config import report_errors
from cleft_bundle.data.captions.preview import preview as captions_of
from cleft_bundle.errors import BundleError


def preview(
    config_file: Sequence[str] = ("configs/train.json",), count: int = 20, seed: int = 0, **override: Any
) -> str:
    """Show the captions of some images beside their labels, without reading an image.

    cleft preview --config_file "['configs/train.json','configs/data_folder.json']" --dataset_dir FOLDER

    Args:
        config_file: a training config and its overlays, a,b or ['a','b'].
        count: number of images; all where there are fewer.
        seed: decides which.
        override: values of the config, such as --dataset_dir or --prompt_file.

    Returns:
        the text.

    Raises:
        BundleError: what is wrong with the config or the data.
    """
    report_errors()
    return captions_of(items_of(config_file, override), count, seed)


def items_of(config_file: Sequence[str], override: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items that a training config lists.

    Args:
        config_file: paths of configs, where later ones override earlier ones.
        override: values by config id, such as ``dataset_dir``.

    Raises:
        BundleError: a file does not exist, an id is unknown, ``items`` or ``dataset_dir`` is missing, or the data are
            not as their adapter expects; names it.
    """
    parser = read_config(config_file, override)
    if "items" not in parser:
        raise BundleError(f"config_file: {', '.join(config_file)} define no 'items'")
    if "dataset_dir" in parser and parser["dataset_dir"] is None:
        raise BundleError("dataset_dir is not set: pass the folder of the images with --dataset_dir")
    items: list[dict[str, Any]] = parser.get_parsed_content("items")
    return items
