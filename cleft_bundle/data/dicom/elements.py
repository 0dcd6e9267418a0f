"""Elements of a DICOM data set: how a message names them, and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from cleft_bundle.errors import RadiographError


def tag(keyword: str | int) -> str:
    """Name an element in a message: "(0028,1050) WindowCenter"; one of a repeating group by its number."""
    number = keyword if isinstance(keyword, int) else tag_for_keyword(keyword) or 0
    return f"({number >> 16:04X},{number & 0xFFFF:04X}) {keyword_for_tag(number)}"


def numbers(ds: Any, name: str | int) -> list[float]:
    """Return the finite numbers of an element, or an empty list where it is absent or empty.

    Empty values at the end are left out: some writers close a list with a backslash.

    Args:
        ds: a pydicom data set or sequence item.
        name: keyword of the element, or its number.

    Raises:
        RadiographError: if a value is not a finite number. The message does not quote it.
    """
    try:
        value: Any = getattr(ds.get(name), "value", None) if isinstance(name, int) else ds.get(name)
        several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        parts: list[Any] = [
            part.strip(" \0") if isinstance(part, str) else part for part in (value if several else [value])
        ]
        while parts and parts[-1] in ("", None):
            parts.pop()
        found = [float(part) for part in parts]
        wrong = "" if np.isfinite(found).all() else "is not finite"
    except Exception:  # pydicom raises many kinds over a value that is not of its type, and quotes it
        wrong = "is not a number"
    if wrong:
        raise RadiographError(f"{tag(name)} {wrong}")
    return found


def number(ds: Any, name: str, default: int) -> int:
    """Return the first number of an element as a whole number, or a default where it is absent or empty."""
    return int((numbers(ds, name) or [default])[0])
