"""Captions of a few items beside what they were written from, for whoever edits a prompt file."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = {"view": "view", "laterality": "side"}


def preview(items: Sequence[Mapping[str, Any]], count: int = 20, seed: int = 0) -> str:
    """Show the captions of some items.

    Args:
        items: of a ``datalist`` function.
        count: how many are drawn; all where there are fewer.
        seed: decides which are drawn.

    Returns:
        Lines of text: each item's number and name; its findings that are present, its view and side where known; its
        captions. Nothing of the patient but what the captions say.
    """
    drawn = sorted(random.Random(seed).sample(range(len(items)), min(count, len(items))))  # noqa: S311 - no secret
    lines = [f"{len(drawn)} of {len(items)} items"]
    for place in drawn:
        item = items[place]
        present = [name for name, value in item.get("findings", {}).items() if value == 1]
        row = {"findings": ", ".join(present)} | {word: item.get(key) for key, word in _SHOWN.items()}
        lines += ["", f"{place + 1}  {item['name']}"]
        lines.append("   row:     " + ("; ".join(f"{word} {value}" for word, value in row.items() if value) or "-"))
        lines += [f"   caption: {caption}" for caption in item.get("captions", [item["caption"]])]
    return "\n".join(lines)
