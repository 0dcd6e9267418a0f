"""``cleft build``: another classifier out of the same training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cleft_bundle.commands.configs import run_with


def build(
    prompt_file: str | None = None,
    config_file: Sequence[str] = ("configs/train.json",),
    calibrate: bool = False,
    **override: Any,
) -> None:
    """Build model.pt, the classifier without a language model, from cleft.pt and a prompt file.

    cleft build configs/prompts/chexpert_5x200.json --config_file configs/train.json

    Args:
        prompt_file: the classes and their prompts, a file like those of configs/prompts; None takes the config's own,
            such as those of one's own table with configs/data_folder.json.
        config_file: the training's config and its overlays of backbones and transforms, a,b or ['a','b'].
        calibrate: fit calibration and thresholds on the validation images, as training does at its end; the config
            then needs the data too. Without it no data set is needed, and the classifier has neither.
        override: values of the config, such as --checkpoint, --model_path, --task or --image_backbone.

    Raises:
        BundleError: what is wrong with the config, the prompts, the checkpoint or the data.
    """
    run_id = "calibrating" if calibrate else "building"
    named = {} if prompt_file is None else {"prompt_file": prompt_file}
    run_with("build_classifier.json", run_id, config_file, {**named, **override})
