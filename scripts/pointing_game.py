"""Play the pointing game: do the heat maps of a trained classifier peak where the findings are?

python scripts/pointing_game.py --model_path models/model.pt --dataset_dir data/phantom_chest_v1_n300_s2
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fire
import pandas as pd
from monai.transforms import LoadImage
from PIL import Image
from studies.chexlocalize import add_masks, fitted
from studies.pointing import Mapper, explain, play
from studies.pointing_game import TOLERANCE, boxes_by_finding

from cleft_bundle.checkpoints import load_classifier
from cleft_bundle.data import RadiographReader, load_prompts, phantoms
from cleft_bundle.data.datasets import chexpert, rsna
from cleft_bundle.data.images.run_lengths import box_of
from cleft_bundle.errors import BundleError
from cleft_bundle.inference.heat_overlay import heat_overlay
from cleft_bundle.networks import ImageEncoder, ZeroShotClassifier
from cleft_bundle.networks.heat_maps import Head, class_maps
from cleft_bundle.transforms import OriginalPixels, build_transforms
from cleft_bundle.vocabulary import NO_FINDING

PROMPTS = Path(__file__).resolve().parent.parent / "configs" / "prompts"


def main(
    model_path: str = "models/model.pt",
    dataset_dir: str = "data/phantom_chest_v1_n300_s2",
    methods: Sequence[str] = ("attention", "occlusion", "similarity"),
    tolerances: Sequence[float] = (0.0, TOLERANCE),
    random_seeds: Sequence[int] = (),
    steady: bool = True,
    pictures: str | None = None,
    masks: str | None = None,
) -> None:
    """Print the rates as a table in Markdown: a row per finding, a column per method and tolerance, and chance.

    Args:
        model_path: the classifier that training wrote.
        dataset_dir: chest phantoms, drawn if the folder's name is theirs and it is not there, or the RSNA challenge.
        methods: of the maps.
        tolerances: pixels beside a box that still hit.
        random_seeds: instead of the trained image tower take one with random weights for each of these seeds.
        steady: take the mean over slightly moved copies of each image.
        pictures: folder that receives some heat overlays by the first method.
        masks: file of CheXlocalize's masks, such as ``gt_segmentations_val.json``; the folder is then CheXpert's.
    """
    try:
        classifier = load_classifier(model_path)
        chain = OriginalPixels(build_transforms(classifier.preprocessing["transforms"]))
        items = list_masked(Path(dataset_dir), masks) if masks else list_items(Path(dataset_dir))
        items = [item for item in items if "boxes" in item or "masks" in item]
        places = [number for number, name in enumerate(classifier.class_names) if name != NO_FINDING]
        findings = [classifier.class_names[place] for place in places]
        maps = {"head": Head.of(classifier), "classes": places, "steady": steady}
        towers = [classifier.image_encoder] if not random_seeds else [random(classifier, s) for s in random_seeds]
        columns: dict[tuple[float, str], pd.Series] = {}
        for method in methods:
            mappers = [partial(class_maps, tower, method=method, **maps) for tower in towers]
            played = pd.concat([play(items, chain, mapper, findings, tolerances) for mapper in mappers])
            images = played.groupby("finding")["name"].nunique()
            for tolerance, rows in played.groupby("tolerance"):
                means = rows.groupby("finding")[["hit", "chance"]].mean()
                columns[tolerance, method] = means["hit"]
                columns[tolerance, "chance"] = means["chance"]
        table = pd.DataFrame({f"{name}, {tolerance:g} px": columns[tolerance, name]
                              for tolerance in tolerances for name in (*methods, "chance")})  # fmt: skip
        table.insert(0, "images", images)
        print(markdown(table))
        if pictures:
            draw(items, chain, partial(class_maps, towers[0], method=methods[0], **maps), findings, Path(pictures))
    except BundleError as error:
        sys.exit(f"error: {error}")


def list_items(root: Path) -> list[dict[str, Any]]:
    """Items with boxes, from a folder of phantoms or of the RSNA challenge."""
    if root.name.startswith("phantom_chest_"):
        patients, seed = (int(part[1:]) for part in root.name.split("_")[-2:])
        root = Path(phantoms.chest(str(root.parent), patients, seed))
        return phantoms.add_boxes(chexpert.datalist(root, prompts=load_prompts(PROMPTS / "chexpert.json")), root)
    return rsna.datalist(root, prompts=load_prompts(PROMPTS / "rsna.json"))


def list_masked(root: Path, masks: str) -> list[dict[str, Any]]:
    """Items of CheXpert's or CheXlocalize's folder that have masks."""
    return add_masks(chexpert.datalist(root, prompts=load_prompts(PROMPTS / "chexpert.json")), masks)


def random(classifier: ZeroShotClassifier, seed: int) -> ImageEncoder:
    """The image tower's architecture with random weights."""
    return ImageEncoder(**classifier.settings["image_encoder"], seed=seed)


def drawn_boxes(item: dict[str, Any], finding: str, shape: tuple[int, ...]) -> list[list[float]]:
    """The boxes of a finding, or the one around its mask, in a picture of so many rows and columns."""
    masks = item.get("masks", {})
    if finding in masks:
        return [box_of(fitted(masks[finding], shape))]
    return boxes_by_finding(item)[finding]


def markdown(table: pd.DataFrame) -> str:
    """A table of counts and shares."""
    lines = ["| finding | " + " | ".join(table) + " |", "| --- |" + " ---: |" * table.shape[1]]
    for name, row in table.iterrows():
        lines.append(f"| {name} | {int(row.iloc[0])} | " + " | ".join(f"{value:.2f}" for value in row.iloc[1:]) + " |")
    return "\n".join(lines)


def draw(
    items: Sequence[dict[str, Any]],
    chain: OriginalPixels,
    mapper: Mapper,
    findings: Sequence[str],
    folder: Path,
    each: int = 3,
) -> None:
    """Write heat overlays of the first images of each finding."""
    folder.mkdir(parents=True, exist_ok=True)
    read = LoadImage(reader=RadiographReader(), image_only=True)
    for place, finding in enumerate(findings):
        shown = [item for item in items if finding in {*boxes_by_finding(item), *item.get("masks", ())}][:each]
        for number, (item, maps) in enumerate(explain(shown, chain, mapper), start=1):
            pixels = read(item["image"]).numpy()
            boxes = drawn_boxes(item, finding, pixels.shape[:2])
            picture = heat_overlay(pixels, maps[place].numpy(), boxes=boxes)
            Image.fromarray(picture).save(folder / f"{finding.replace(' ', '_')}_{number}.png")


if __name__ == "__main__":
    fire.Fire(main)
