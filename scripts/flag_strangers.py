"""Count how many images of other kinds a classifier flags as unlike those that it was validated on.

python scripts/flag_strangers.py --model_path models/model.pt --known test.csv --strangers "{'mammograms': 'FOLDER'}"
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import fire
import numpy as np
import pandas as pd
from PIL import Image
from studies.strangers import as_markdown, crops, flagged, noise, pages

from cleft_bundle.data import list_images
from cleft_bundle.errors import BundleError
from cleft_bundle.inference import Predictor


def main(
    model_path: str = "models/model.pt",
    known: str | None = None,
    strangers: Mapping[str, str] | None = None,
    pictures: str | None = None,
    made: int = 60,
    cut: int = 6,
    seed: int = 0,
) -> str:
    """Score images of a classifier's own kind and of others.

    Args:
        model_path: a classifier that knows typicality.
        known: a CSV with the columns image and patient_id: held-out patients of the classifier's own kind; None: none.
        strangers: names of groups to folders or lists of images.
        pictures: a folder of photographs, of each of which random squares are cut.
        made: number of images of noise, and of pages of text, that are made.
        cut: number of squares of each photograph.
        seed: of what is made and cut.

    Returns:
        a table of the shares that are flagged.
    """
    predictor = Predictor(model_path)
    if predictor.scorer.network.typicality is None:
        raise BundleError(f"{model_path} does not know which images are typical: cleft build --calibrate")
    groups, patients = {}, None
    if known is not None:
        table = pd.read_csv(known, dtype=str)
        groups["held-out patients of its own kind"] = [str(Path(known).parent / image) for image in table["image"]]
        patients = table["patient_id"].tolist()
    groups |= {name: [item["image"] for item in list_images(place)] for name, place in (strangers or {}).items()}
    if pictures is not None:
        opened = [np.asarray(Image.open(item["image"]).convert("RGB")) for item in list_images(pictures)]
        groups["photographs and other pictures"] = list(crops(opened, cut, seed))
    groups |= {"noise": list(noise(made, seed)), "pages of text": list(pages(made, seed))}
    return as_markdown(flagged(predictor, groups, patients))


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
