"""Print twenty captions of a dataset beside their rows, to see what a prompt file makes of it.

python scripts/preview_captions.py --config_file "['configs/train.json','configs/data_folder.json']" --dataset_dir DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fire

from cleft_bundle.config import report_errors
from cleft_bundle.data.captions.preview import items_of, preview


def main(
    config_file: str | Sequence[str] = "configs/train.json", count: int = 20, seed: int = 0, **override: Any
) -> None:
    """List the items of the config and print some of them; no image is read.

    Args:
        config_file: a training config, or a list of one and its overlays.
        count: number of items.
        seed: decides which.
        override: values of the config, such as `--dataset_dir` or `--prompt_file`.
    """
    report_errors()
    print(preview(items_of(config_file, override), count, seed))


if __name__ == "__main__":
    fire.Fire(main)
