"""A data report: one HTML file that needs nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cleft_bundle.data.collate import CaptionTokenizer
from cleft_bundle.data.datalists import fingerprint
from cleft_bundle.data.image_counts import count_doubts, warn_of
from cleft_bundle.data.item import Item
from cleft_bundle.data.phantoms.folder import is_phantom
from cleft_bundle.data.token_checks import captions_of
from cleft_bundle.data.tolerant_dataset import BLANK, TolerantDataset
from cleft_bundle.reports.describe import counts, pictures
from cleft_bundle.reports.pages import COLOURS, draw, thumbnail, write_page

logger = logging.getLogger(__name__)


def write_report(
    splits: Mapping[str, Sequence[Item]],
    path: str | Path,
    *,
    dataset_name: str,
    dataset_dir: str | Path,
    class_names: Sequence[str],
    tokenize: CaptionTokenizer,
    transform: Callable[[Item], Item],
    batch_size: int,
    samples: int = 24,
    seed: int = 0,
) -> str:
    """Write a page of pictures about a divided dataset.

    It shows counts by split, class, view, side, sex, age and manufacturer, which labels occur together, how long the
    captions are, how many of them a batch holds, and some images as the network gets them. It shows no name of a file
    and no pseudonym. A set that this package drew says that it is one of phantoms.

    Args:
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        path: the HTML file.
        dataset_name: the title.
        dataset_dir: folder of the set, to tell phantoms.
        class_names: names of the labels.
        tokenize: the tokenizer of the captions and its window.
        transform: from an item to ``image`` [1 or 3, H, W] of 0 to 1; deterministic.
        batch_size: images per batch.
        samples: images to show.
        seed: of what is drawn at random: batches, samples, headers that are read.

    Returns:
        the path as text.
    """
    splits = {split: splits[split] for split in COLOURS}
    items = [item for members in splits.values() for item in members]
    frame = counts.tabulate(splits)
    headers = [] if frame["manufacturer"].notna().any() else [name for name in counts.makers(items, seed) if name]
    path = write_page(
        path,
        "cleft_bundle.reports.describe",
        name=dataset_name,
        phantom=is_phantom(dataset_dir),
        fingerprint=fingerprint(splits),
        colours=COLOURS,
        tiles=_tiles(splits, frame),
        sections=[
            _classes(splits, items, class_names),
            _patients(frame, headers),
            _captions(splits, items, tokenize, batch_size, seed),
        ],
        samples=_samples(items, class_names, transform, samples, seed),
    )
    logger.info("data report   %s", path)
    return path


def _tiles(splits: Mapping[str, Sequence[Item]], frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The figures at the top: of all, and of each split."""
    groups = [("all", frame), *((split, frame[frame["split"] == split]) for split in splits)]
    return [
        {
            "split": split,
            "images": f"{len(group):,}",
            "patients": f"{group['patient_id'].nunique():,}",
            "share": len(group) / max(len(frame), 1),
        }
        for split, group in groups
    ]


def _picture(title: str, uri: str, note: str = "") -> dict[str, str]:
    return {"title": title, "uri": uri, "note": note}


def _classes(splits: Mapping[str, Sequence[Item]], items: Sequence[Item], classes: Sequence[str]) -> dict[str, Any]:
    tables = counts.label_counts(splits, classes)
    total = sum(tables.values(), pd.DataFrame(0, index=list(classes), columns=["positive", "negative", "unknown"]))
    unknown = total["unknown"]
    note = ""
    if unknown.any():
        note = f"Unknown labels: {', '.join(f'{name} {count:,}' for name, count in unknown[unknown > 0].items())}. "
    shown = [_picture("Positive images of each class", _draw_classes(tables), note)] if classes else []
    matrix = counts.cooccurrence(items, classes)
    together = int(matrix.sum() - matrix.trace())
    text = "" if together or not classes else "No image has more than one class."
    if together:
        side = 2.2 + 0.42 * min(len(classes), pictures.MANY)
        uri = draw(pictures.cooccurrence_map, matrix, classes, size=(side + 2.0, side))
        shown.append(
            _picture("Classes that occur together", uri, "Images with both classes; in grey, images with the class.")
        )
    return {"title": "Classes", "text": text, "pictures": shown}


def _draw_classes(tables: Mapping[str, pd.DataFrame]) -> str:
    rows = len(next(iter(tables.values())))
    return draw(pictures.class_bars, tables, size=(9.5, 1.3 + 0.34 * rows))


def _patients(frame: pd.DataFrame, headers: Sequence[str]) -> dict[str, Any]:
    columns = [name for name in (*counts.DETAILS, *counts.NOTES) if name != "age" and frame[name].notna().any()]
    shown = []
    for start in range(0, len(columns), 2):
        pair = columns[start : start + 2]
        rows = max(min(frame[name].nunique(dropna=False), 10) for name in pair)
        uri = draw(pictures.category_bars, frame, pair, size=(4.75 * len(pair), 1.1 + 0.3 * rows))
        shown.append(_picture(" and ".join(pair).replace("_", " ").capitalize(), uri))
    if frame["age"].notna().any():
        missing = int(frame["age"].isna().sum())
        note = f"Not known of {missing:,} images." if missing else ""
        shown.append(_picture("Age", draw(pictures.age_bars, frame, size=(9.5, 2.6)), note))
    text = ""
    absent = [name for name in counts.DETAILS if not frame[name].notna().any()]
    if headers:
        absent.remove("manufacturer")
        named = pd.Series(headers).value_counts()
        text = f"Manufacturer, in the headers of {len(headers)} files: " + ", ".join(
            f"{name} ({count / len(headers):.0%})" for name, count in named.iloc[:8].items()
        )
        text += ". "
    if absent:
        text += f"The set does not say: {', '.join(absent)}."
    return {"title": "Patients and images", "text": text, "pictures": shown}


def _captions(
    splits: Mapping[str, Sequence[Item]],
    items: Sequence[Item],
    tokenize: CaptionTokenizer,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    frequency, lengths = counts.caption_tokens(items, tokenize)
    limit = tokenize.max_length - 1  # one is EOS
    cut = int(frequency[lengths > limit].sum())
    shown = [
        _picture(
            "Length",
            draw(pictures.token_bars, frequency, lengths, limit, size=(4.75, 2.8)),
            f"{cut:,} of {int(frequency.sum()):,} captions are cut ({cut / frequency.sum():.1%}); "
            f"the longest has {lengths.max()} tokens.",
        )
    ]
    distinct = counts.distinct_captions(splits["train"], batch_size, seed, tokenize)
    if len(distinct):
        shown.append(
            _picture(
                "Distinct captions in a batch",
                draw(pictures.batch_bars, distinct, batch_size, size=(4.75, 2.8)),
                f"{distinct.mean():.1f} of {batch_size} on average, in the first {len(distinct)} training batches. "
                "Images with equal captions cannot be told apart by them.",
            )
        )
    rows = min(len(frequency), 11)
    uri = draw(pictures.caption_bars, frequency, size=(9.5, 0.9 + 0.27 * rows))
    shown.append(_picture("The most frequent captions", uri, f"{len(frequency):,} different captions in all."))
    return {"title": "Captions", "text": "", "pictures": shown}


def _samples(
    items: Sequence[Item], classes: Sequence[str], transform: Callable[[Item], Item], count: int, seed: int
) -> list[dict[str, Any]]:
    chosen = counts.choose_samples(items, classes, count, seed)
    pictured = list(TolerantDataset([{"image": item["image"], "path": ""} for item in chosen], transform))
    doubts = count_doubts(result["image"] for result in pictured if "error" not in result)
    doubts[BLANK] = sum(result.get("error") == BLANK for result in pictured)
    warn_of(doubts, len(chosen), "images that the data report looked at")
    return [
        {
            "uri": None if "error" in result else thumbnail(result["image"]),
            "error": result.get("error", ""),
            "captions": captions_of(item),
            "split": item["split"],
            "tags": [str(item[key]) for key in ("view", "laterality", "sex") if item.get(key)] + _orientation(result),
        }
        for item, result in zip(chosen, pictured, strict=True)
    ]


def _orientation(result: Item) -> list[str]:
    """What a transformed image's header led to, where it was not upright or not understood."""
    done = getattr(result.get("image"), "meta", {}).get("orientation_applied", "none")
    return [] if done in ("none", "not given") else [f"orientation: {done}"]
