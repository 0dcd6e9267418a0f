"""Share of radiographs whose pixels alone tell how they lie, for each of the eight flips and turns; the weights.

python scripts/check_orientation.py measure FOLDER... [--held_back]
python scripts/check_orientation.py fit NIH_FOLDER KERMANY_FOLDER

A folder holds labels.csv, with the columns image and patient_id, and its upright images; mammograms have a column
laterality, and are upright with the chest wall left (left breasts) or right (right breasts).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from cleft_bundle.config import report_errors
from cleft_bundle.data import RadiographReader
from cleft_bundle.data.images.turns import TURNS, Turn
from cleft_bundle.errors import BundleError
from cleft_bundle.transforms.orientation_check import chest_cells, halves, seen_turn

C, LARGEST = 0.3, 9  # strength of the regression, and the largest weight after rounding
SIDE = 256  # the images are shrunk to this before they are turned: the check looks at fewer pixels


def measure(*folders: str, held_back: bool = False) -> None:
    """Print a table: a row per flip or turn of the upright images, and in a column per set how often it is told.

    Args:
        folders: of the images.
        held_back: leave out the images that `fit` is given.
    """
    report_errors()
    columns: dict[str, list[str]] = {}
    for folder in folders:
        table = _labels(folder)
        table = table[~_fitted(table)] if held_back else table
        breast = "laterality" in table
        images = [_upright(image, side) for image, side in _images(folder, table)]
        told = [[seen_turn(apply(image, turn), breast) for image in images] for turn in TURNS.values()]
        wanted = [_back(turn) for turn in TURNS.values()]
        turned = [np.mean([_same(name, want, breast) for name in row]) for row, want in zip(told, wanted, strict=True)]
        whole = [np.mean([name == want for name in row]) for row, want in zip(told, wanted, strict=True)]
        title = f"{Path(folder).name} ({len(images)})"
        columns[f"{title}, {'chest wall' if breast else 'turn'}"] = [f"{share:.3f}" for share in turned]
        columns[f"{title}, {'and head' if breast else 'and mirroring'}"] = [f"{share:.3f}" for share in whole]
    print("| the image was put through | " + " | ".join(columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for number, name in enumerate(TURNS):
        print(f"| {name} | " + " | ".join(column[number] for column in columns.values()) + " |")


def fit(*folders: str) -> None:
    """Print the tables UPRIGHT and SIDES of `orientation_check`; each folder weighs the same."""
    report_errors()
    cells, weights = [], []
    for folder in folders:
        table = _labels(folder)
        table = table[_fitted(table)]
        cells += [chest_cells(image) for image, _ in _images(folder, table)]
        weights += [1 / len(table)] * len(table)
    upright, share = np.array(cells), np.array(weights) * len(weights) / len(folders)
    turned = np.concatenate([np.rot90(upright, quarters, (1, 2)) for quarters in range(4)])
    is_upright = np.arange(len(turned)) < len(upright)
    whole = _weights(halves(turned)[0], is_upright, np.tile(share, 4), intercept=True)
    sides = halves(upright)[1]
    mirrored = np.arange(2 * len(sides)) < len(sides)
    print("UPRIGHT =", whole.tolist())
    print("SIDES =", _weights(np.concatenate([sides, -sides]), mirrored, np.tile(share, 2), intercept=False).tolist())


def _weights(features: np.ndarray, labels: np.ndarray, share: np.ndarray, *, intercept: bool) -> np.ndarray:
    model = LogisticRegression(C=C, fit_intercept=intercept, max_iter=3000)
    found = model.fit(features.reshape(len(features), -1), labels, sample_weight=share).coef_.reshape(
        features.shape[1:]
    )
    return np.rint(found / np.abs(found).max() * LARGEST).astype(int)


def _labels(folder: str) -> pd.DataFrame:
    path = Path(folder) / "labels.csv"
    if not path.is_file():
        raise BundleError(f"{path} does not exist")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _fitted(table: pd.DataFrame) -> pd.Series:
    """Which rows the tables were made of: the training images where the set is divided, else every other patient."""
    if "split" in table:
        return table["split"] == "train"
    return table["patient_id"].isin(sorted(table["patient_id"].unique())[::2])


def _images(folder: str, table: pd.DataFrame) -> Iterator[tuple[torch.Tensor, str]]:
    reader = RadiographReader()
    sides: Sequence[str] = table["laterality"] if "laterality" in table else [""] * len(table)
    for name, side in zip(table["image"], sides, strict=True):
        image, _ = reader.get_data(reader.read(str(Path(folder) / name)))
        step = max(1, max(image.shape) // SIDE)
        whole = image[: image.shape[0] // step * step, : image.shape[1] // step * step]
        small = whole.reshape(whole.shape[0] // step, step, -1, step).mean((1, 3))
        yield torch.from_numpy(small)[None], side


def _upright(image: torch.Tensor, side: str) -> torch.Tensor:
    """A mammogram with its chest wall left; a chest as it is."""
    return image.flip(-1) if side == "R" else image


def apply(image: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Turn an image [C, H, W], then mirror it or not."""
    turned = torch.rot90(image, turn.quarters, (1, 2))
    return turned.flip(-1) if turn.mirror else turned


def _back(turn: Turn) -> str:
    """The name of what undoes a turn."""
    probe = torch.arange(6.0).reshape(1, 2, 3)
    moved = apply(probe, turn)
    return next(name for name, other in TURNS.items() if torch.equal(apply(moved, other), probe))


def _same(told: str, wanted: str, breast: bool) -> bool:
    """Whether two turns bring the same border of a chest up, or of a mammogram to the left, mirrored or not."""
    told_ends, wanted_ends = (TURNS[name].directions("F", "L") for name in (told, wanted))
    return told_ends[breast] == wanted_ends[breast]


if __name__ == "__main__":
    commands: dict[str, Any] = {"measure": measure, "fit": fit}
    fire.Fire(commands)
