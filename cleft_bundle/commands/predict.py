"""``cleft predict``: scores of images in somebody's own words, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cleft_bundle.data.quiet import quiet
from cleft_bundle.errors import BundleError
from cleft_bundle.files import replacing
from cleft_bundle.inference import Predictor
from cleft_bundle.inference.heat_overlay import heat_overlay
from cleft_bundle.inference.prediction import Prediction

_LONGEST_SIDE = 1024  # pixels of a heat map's picture


def predict(
    *images: str,
    find: Sequence[str] = (),
    model: str = "models/model.pt",
    checkpoint: str | None = None,
    config_file: Sequence[str] = (),
    template: str | None = None,
    csv: str | None = None,
    heat_maps: str | None = None,
    **override: Any,
) -> str:
    """Score images for findings in your own words.

    cleft predict x.dcm --find "pleural effusion" --find pneumothorax

    Args:
        images: files and folders.
        find: a finding; given again, one more, or a,b. Without it, the classes of the model. Words that are no classes
            need vocabulary.safetensors or cleft.pt beside the model.
        model: model.pt, or a folder that holds it.
        checkpoint: the trained network for new words; by default cleft.pt beside the model.
        config_file: the training's config and its overlays for new words, a,b or ['a','b'].
        template: the prompt that a finding is put into, by its slot {class}.
        csv: a file that receives the scores as a table.
        heat_maps: a folder that receives a picture of each finding in each image.
        override: values of the config for new words, such as --image_backbone.

    Returns:
        the table and what is to be known of it.

    Raises:
        BundleError: what is wrong with the images, the model or the words.
    """
    if not images:
        raise BundleError("cleft predict: IMAGES is missing: name files or folders")
    predictor = Predictor(model, checkpoint, config_file, override, template)
    with quiet():
        found = predictor.predict(list(images), list(find) or None)
    lists = found.scores.filter(["possible", "positive"])
    table = found.scores.assign(
        **{str(name): column.map("|".join, na_action="ignore") for name, column in lists.items()}
    )
    if csv is not None:
        with replacing(csv) as temporary:
            table.to_csv(temporary, index_label="image")
    lines = [table.to_string(float_format="%.3f", na_rep=""), *(f"note: {warning}" for warning in found.warnings)]
    if heat_maps is not None:
        lines.append(f"heat maps: {_draw(found, Path(heat_maps))} in {heat_maps}")
    return "\n".join(lines)


def _draw(found: Prediction, folder: Path) -> int:
    """Draw every finding over every image that could be read, as ``<number of image>_<number of finding>.png``."""
    drawn = 0
    for number, error in enumerate(found.scores["error"]):
        for place, finding in enumerate(found.findings if not error else (), start=1):
            heat = found.heat_map(finding, number)
            picture = heat_overlay(found.image(number), heat, longest_side=_LONGEST_SIDE)
            with replacing(folder / f"{number + 1}_{place}.png") as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")
            drawn += 1
    return drawn
