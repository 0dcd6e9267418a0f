"""Identical pictures under different patients: among the evaluated images, and with those of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cleft_bundle.checkpoints import picture_roles
from cleft_bundle.data import shared_pictures
from cleft_bundle.data.item import Item

_USES = {"learnt": "trained on", "chosen": "chosen on"}


def same_pictures(
    items: Sequence[Item], split: str, source: str | Path | Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Count pictures that occur more than once.

    Args:
        items: the evaluated items, with the digest of their picture where it is known.
        split: what they are called.
        source: the classifier's file, or its provenance; None where there is none.

    Returns:
        ``known`` (of how many images the picture is known), ``shared`` (pictures under more than one patient) and
        ``images_sharing`` (the images that show them); ``seen``: what the classifier used pictures for, ``learnt`` and
        ``chosen``, to how many of the images show one of these, empty where it does not say. None where no picture is
        known.
    """
    found = shared_pictures({split: items})
    if not found["known"]:
        return None
    seen = picture_roles(source, items) if source is not None else {}
    counts = {key: found[key] for key in ("images", "known", "shared", "images_sharing")}
    return {**counts, "seen": {use: count for use, count in seen.items() if use in _USES}}


def picture_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Sentences about what was found; none where nothing was."""
    if found is None:
        return []
    lines = []
    if found["shared"]:
        lines.append(
            f"{found['images_sharing']:,} images show {found['shared']:,} pictures, pixel by pixel, that occur under "
            "different patients: these may be one, and the intervals too narrow."
        )
    lines += [
        f"{count:,} of {found['known']:,} images show a picture that the classifier was {_USES[use]}, be it of the "
        "same patient or of another."
        for use, count in found["seen"].items()
        if count
    ]
    return lines
