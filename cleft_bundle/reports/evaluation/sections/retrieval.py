"""Retrieval: how well images and captions find each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleft_bundle.reports.evaluation.sections.parts import bare, cell, row, section, table

_DIRECTIONS = {"image_to_text": "image to text", "text_to_image": "text to image"}


def sections(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The section of retrieval; none where nothing was retrieved."""
    found = content["retrieval"]
    if found is None:
        return []
    ks = sorted({int(name.rpartition("_")[2]) for name in found if "_recall_at_" in name})
    rows = [
        row(
            words,
            [
                *(cell(found.get(f"{direction}_recall_at_{k}")) for k in ks),
                bare(found[f"{direction}_median_rank"]["value"], "g"),
            ],
        )
        for direction, words in _DIRECTIONS.items()
    ]
    chance = content["retrieval_chance"]
    for direction, words in _DIRECTIONS.items() if chance else ():
        cells = [bare(chance.get(f"{direction}_recall_at_{k}")) for k in ks]
        rows.append(row(f"{words}, by chance", [*cells, bare(None)]))
    text = (
        f"Each image seeks its caption among {content['captions']:,} different ones, and each of these any of its "
        f"images among {content['dataset']['images']:,}. Recall at k: the share that is found among the first k."
    )
    columns = [*(f"recall at {k}" for k in ks), "median rank"]
    hints = [*("higher is better" for _ in ks), "lower is better"]
    return [section("Retrieval", text, tables=[table(columns, rows, hints=hints)])]
