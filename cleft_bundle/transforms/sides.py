"""The sides of the body, which change where a picture is mirrored."""

from __future__ import annotations

import re

_OPPOSITE = {"L": "R", "R": "L", "left": "right", "right": "left"}
_WORDS = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def opposite(laterality: str) -> str:
    """Return "R" for "L" and "L" for "R"; anything else, such as "B" or "", as it is."""
    return _OPPOSITE.get(laterality, laterality)


def mirror_caption(caption: str) -> str:
    """Exchange the words left and right in a caption; their capitals stay where they are."""

    def exchange(found: re.Match[str]) -> str:
        word = _OPPOSITE[found[0].lower()]
        if found[0].isupper():
            return word.upper()
        return word.capitalize() if found[0][0].isupper() else word

    return _WORDS.sub(exchange, caption)
