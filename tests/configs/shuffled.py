"""The control of a learning test: captions that say nothing about their images."""

import random
from typing import Any


def shuffle_captions(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items whose captions are dealt out anew among them."""
    captions = [item["caption"] for item in items]
    random.Random(0).shuffle(captions)  # noqa: S311 - dealing cards, no secret
    return [{**item, "caption": caption} for item, caption in zip(items, captions, strict=True)]
