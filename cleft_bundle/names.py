"""Names that people chose, in places where characters mean something: mapped there, and never used as identifiers."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Sequence

MOST = 250  # characters of a name in MLflow: mlflow.utils.validation.MAX_ENTITY_KEY_LENGTH
_STRANGE = re.compile(r"[^\w.\- /]|[\n\r]|_(?=x[0-9A-F]{4})|^ | $")
_CUT = "_xFFFFFF_"  # no character's code: what follows is a digest
_DIGEST = 32  # hexadecimal digits
_PREFIX = "class:"


def mlflow_name(name: str) -> str:
    """The name under which MLflow keeps a metric or a parameter; a plain name is its own.

    MLflow takes letters, digits, ``_ - . /`` and blanks, and no name that a path would be normalised from. Every other
    character becomes ``_xHHHH_`` with its code in hexadecimal digits, as in Office Open XML (ISO/IEC 29500-1, 22.4.2.4,
    ``bstr``); the ``_`` of what looks like such a code becomes one too, so that no two names share one. Of a name that
    is too long, the end becomes a digest of the whole.

    Args:
        name: any text.

    Returns:
        at most 250 characters.
    """
    escaped = _STRANGE.sub(lambda found: _code(found[0]), name)
    if posixpath.normpath(escaped) != escaped or escaped == "." or escaped.startswith(("..", "/")):
        escaped = re.sub(r"[./]", lambda found: _code(found[0]), escaped) or _CUT
    if len(escaped) > MOST:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
        kept = re.sub(r"_(x[0-9A-F]*)?$", "", escaped[: MOST - len(_CUT) - _DIGEST])  # no half of a code
        escaped = kept + _CUT + digest
    return escaped


def column(class_name: str, fixed: Sequence[str]) -> str:
    """The column of a class in a table that has fixed columns as well.

    It is the name of the class, behind ``class:`` where that is the name of a fixed column, or of such a one behind
    ``class:``. So it depends on no other class, and no two columns are called the same.

    Args:
        class_name: any text.
        fixed: names of the other columns.
    """
    bare = class_name
    while bare.startswith(_PREFIX):
        bare = bare.removeprefix(_PREFIX)
    return _PREFIX + class_name if bare in fixed else class_name


def plain_name(name: str) -> str:
    """A name in lower case, with single blanks between its words."""
    return " ".join(name.lower().split())


def shorten(text: str, most: int) -> str:
    """At most so many characters; of longer text the beginning and, more of it, the end, where captions differ."""
    if len(text) <= most:
        return text
    end = 2 * (most - 3) // 3
    return f"{text[: most - 3 - end].rstrip()} … {text[-end:].lstrip()}"


def joined(names: Sequence[str]) -> str:
    r"""Several names in one cell, by ``|``; in a name ``|`` and ``\`` have a ``\`` before them."""
    return "|".join(re.sub(r"[|\\]", r"\\\g<0>", name) for name in names)


def printable(path: str) -> str:
    r"""A path whose bytes need not be UTF-8 as a text that is.

    Python has a byte that is no UTF-8 as a lone surrogate (PEP 383), which no UTF-8 file takes. Here it becomes
    ``\xHH``, and in such a path, or one that holds a text like that itself, ``\`` becomes ``\\``: no two paths become
    one.

    Args:
        path: as ``os`` functions return it.
    """
    if not re.search(r"[\ud800-\udfff]|\\x[0-9a-f]{2}", path):
        return path
    doubled = path.replace("\\", "\\\\")
    return doubled.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _code(character: str) -> str:
    return f"_x{ord(character):04X}_"
