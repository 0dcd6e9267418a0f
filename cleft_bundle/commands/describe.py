"""``cleft describe``: what the data of a training are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cleft_bundle.commands.configs import run_with


def describe(config_file: Sequence[str] = ("configs/train.json",), **override: Any) -> None:
    """Write a page of pictures and counts of the data that a config trains on, and keep it in MLflow.

    cleft describe --config_file "['configs/train.json','configs/data_folder.json']" --dataset_dir FOLDER

    The page is data_report.html in the config's output_dir.

    Args:
        config_file: a training config and its overlays, a,b or ['a','b'].
        override: values of the config, such as --dataset_dir or --report_path.

    Raises:
        BundleError: what is wrong with the config or the data.
    """
    run_with("describe.json", "describing", config_file, override)
