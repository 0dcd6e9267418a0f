"""Build models/model.pt, the classifier without a language model, from models/cleft.pt and a prompt file.

python scripts/build_classifier.py configs/prompts/chexpert_5x200.json --config_file configs/train.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
from monai.bundle import run

from cleft_bundle.config import report_errors

OVERLAY = Path(__file__).resolve().parents[1] / "configs" / "build_classifier.json"


def main(
    prompt_file: str,
    config_file: str | Sequence[str] = "configs/train.json",
    calibrate: bool = False,
    **override: Any,
) -> None:
    """Run the config with configs/build_classifier.json on top.

    Args:
        prompt_file: the classes and their prompts, a file like those of configs/prompts.
        config_file: the training's config and its overlays of backbones and transforms.
        calibrate: fit calibration and thresholds on the validation images, as training does at its end; the config
            then needs the data too. Without it no data set is needed, and the classifier has neither.
        override: values of the config, such as `--checkpoint`, `--model_path`, `--task` or `--image_backbone`.
    """
    report_errors()
    files = [config_file] if isinstance(config_file, str) else list(config_file)
    run(
        run_id="calibrating" if calibrate else "building",
        config_file=[*files, str(OVERLAY)],
        workflow_type="train",
        prompt_file=prompt_file,
        **override,
    )


if __name__ == "__main__":
    fire.Fire(main)
