"""Write one HTML page of pictures about the data that a config trains on, and keep it in MLflow.

python scripts/describe_data.py --config_file "['configs/train.json','configs/data_folder.json']" --dataset_dir DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
from monai.bundle import run

from cleft_bundle.config import report_errors

OVERLAY = Path(__file__).resolve().parents[1] / "configs" / "describe.json"


def main(config_file: str | Sequence[str] = "configs/train.json", **override: Any) -> None:
    """Run the config with configs/describe.json on top; the page is `output_dir`/data_report.html.

    Args:
        config_file: a training config, or a list of one and its overlays.
        override: values of the config, such as `--dataset_dir` or `--report_path`.
    """
    report_errors()
    files = [config_file] if isinstance(config_file, str) else list(config_file)
    run(run_id="describing", config_file=[*files, str(OVERLAY)], workflow_type="train", **override)


if __name__ == "__main__":
    fire.Fire(main)
