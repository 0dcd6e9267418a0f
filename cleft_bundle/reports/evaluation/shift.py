"""The shift from the training's images to those at hand: people, scanners, grey levels and embeddings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from cleft_bundle.checkpoints.patient_roles import age_band, is_said
from cleft_bundle.data.item import Item
from cleft_bundle.data.radiograph_reader import RadiographReader
from cleft_bundle.data.tolerant_dataset import TolerantDataset
from cleft_bundle.metrics import embedding_shift
from cleft_bundle.metrics import shift as compare
from cleft_bundle.reports.evaluation.scored import group_of

#: What is compared, and what it is called.
VARIABLES = {
    "age": "age in years",
    "sex": "sex",
    "view": "view",
    "laterality": "side",
    "density": "density",
    "manufacturer": "scanner",
    "brightness": "mean grey level (0 black, 1 white)",
    "contrast": "standard deviation of grey levels",
}
EMBEDDING = "embedding by the network"
_PICTURED = ("brightness", "contrast")
_SHOWN = 4  # categories of a variable
_LEAST = 2  # images of which anything is measured
_UNKNOWN, _RARE = "unknown", "rare"  # values in the counts that a file stores

Embed = Callable[[Sequence[Item]], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """Facts about some images.

    Args:
        values: some of :data:`VARIABLES` to one value per image, None where it is unknown; ages are years, or texts of
            bands of ten where only these are known.
        embeddings: float [M, D] of some of them; None: not known.
        owners: [M], the patients of these.
    """

    values: Mapping[str, Sequence[Any]]
    embeddings: np.ndarray | None = None
    owners: Sequence[str] = field(default_factory=list)


def sample_of(items: Sequence[Item]) -> Sample:
    """Facts that items state about their images."""
    values: dict[str, list[Any]] = {}
    for key in VARIABLES:
        column = [item.get(key) for item in items]
        if key != "age":
            column = [group_of(key, value) for value in column]
        if any(is_said(value) for value in column):
            values[key] = [value if is_said(value) else None for value in column]
    return Sample(values)


def sample_of_counts(counts: Mapping[str, Any] | None) -> Sample | None:
    """Facts that a file stores about its training images: by variable, counts of values; ages in bands.

    Args:
        counts: ``images`` of :meth:`cleft_bundle.checkpoints` memory, or None.
    """
    if not counts:
        return None
    values: dict[str, list[Any]] = {}
    for key in VARIABLES:
        if isinstance(found := counts.get(key), Mapping):
            column = [
                None if value in (_UNKNOWN, _RARE) else (value if key == "age" else group_of(key, value))
                for value, count in found.items()
                for _ in range(int(count))
            ]
            values[key] = column
    return Sample(values)


def as_it_is() -> Compose:
    """Read an image and change nothing."""
    return Compose(
        [
            LoadImaged(keys="image", reader=RadiographReader()),
            EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
        ]
    )


def looked_at(items: Sequence[Item], most: int, embed: Embed | None = None, seed: int = 0) -> Sample:
    """Facts that items state about their images, and the looks of some: grey levels as they are read, and embeddings.

    Args:
        items: with ``image``; what cannot be read is passed over.
        most: so many are drawn and looked at.
        embed: from M items to embeddings [M, D]; None: there are none.
        seed: of the draw.
    """
    sample = sample_of(items)
    drawn = [items[place] for place in np.sort(np.random.default_rng(seed).permutation(len(items))[:most])]
    read = list(TolerantDataset([{"image": item["image"], "path": ""} for item in drawn], _Levels(as_it_is())))
    good = [(item, one) for item, one in zip(drawn, read, strict=True) if "brightness" in one]
    if len(good) < _LEAST:
        return sample
    values = {**sample.values, **{key: [one[key] for _, one in good] for key in _PICTURED}}
    if embed is None:
        return Sample(values)
    owners = [str(item["patient_id"]) for item, _ in good]
    return Sample(values, embed([item for item, _ in good]), owners)


class _Levels:
    """Mean and standard deviation of the pixels of an item's image; the image itself is not kept."""

    def __init__(self, steps: Callable[[Any], Any]) -> None:
        self.steps = steps

    def __call__(self, item: Item) -> dict[str, float]:
        pixels = torch.as_tensor(self.steps(item)["image"]).float()
        return {"brightness": float(pixels.mean()), "contrast": float(pixels.std())}


def shift(training: Sample | None, here: Sample | None) -> dict[str, Any] | None:
    """Compare two samples.

    Returns:
        ``rows``: a list of ``name``, ``training``, ``here`` and ``distance`` (texts) and ``measures`` (numbers by
        name); ``unknown``: names of what is not known of either; None where nothing is known of the training.
    """
    if training is None or here is None:
        return None
    rows, unknown = [], []
    for key, name in VARIABLES.items():
        if key not in training.values or key not in here.values:
            unknown.append(name)
            continue
        before, now = list(training.values[key]), list(here.values[key])
        if key == "age" and any(isinstance(value, str) for value in before):
            now = [age_band(value) for value in now]
        found = compare(before, now)
        measures = {
            "standardised difference": found.standardised_difference,
            "largest distance of cumulative shares": found.ks_distance,
            "total variation": found.total_variation,
        }
        known = {word: value for word, value in measures.items() if not math.isnan(value)}
        texts = {"training": _told(before), "here": _told(now)}
        rows.append({"name": name, **texts, "distance": _words(known), "measures": known})
    rows += _embedded(training, here, unknown)
    return {"rows": rows, "unknown": unknown}


def _embedded(training: Sample, here: Sample, unknown: list[str]) -> list[dict[str, Any]]:
    sides = [side.embeddings for side in (training, here)]
    if any(side is None or len(side) < _LEAST for side in sides):
        unknown.append(EMBEDDING)
        return []
    found = embedding_shift(sides[0], sides[1], training.owners, here.owners)  # type: ignore[arg-type]  # asked above
    measures = {"AUROC of telling the two apart": found.auroc, "Frechet distance": found.frechet}
    known = {word: value for word, value in measures.items() if not math.isnan(value)}
    texts = {"training": f"{found.n_reference:,} images", "here": f"{found.n_other:,} images"}
    return [{"name": EMBEDDING, **texts, "distance": _words(known), "measures": known}]


def _words(measures: Mapping[str, float]) -> str:
    return "; ".join(f"{word} {value:.2f}" for word, value in measures.items()) or "-"


def _told(values: Sequence[Any]) -> str:
    """Quartiles of numbers, or the shares of the most frequent categories."""
    known = [value for value in values if is_said(value)]
    if not known:
        return "not known"
    missing = f"; {len(values) - len(known):,} not known" if len(known) < len(values) else ""
    if not isinstance(known[0], str):
        low, middle, high = np.quantile(np.array(known, dtype=float), [0.25, 0.5, 0.75])
        return f"{middle:.3g} ({low:.3g} to {high:.3g}){missing}"
    counts = Counter(known).most_common()
    parts = [f"{value} {count / len(known):.0%}" for value, count in counts[:_SHOWN]]
    return ", ".join(parts) + (", others" if len(counts) > _SHOWN else "") + missing
