"""Pseudonyms: what stands for a patient or a study once an identifier has been read.

A pseudonym is a keyed BLAKE2b hash (RFC 7693). The same identifier gives the same pseudonym as long as the salt is the
same, so images of one patient stay together in splits, metadata and prediction tables, and the identifier itself need
not be kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from cleft_bundle.errors import BundleError

SALT_VARIABLE = "CLEFT_BUNDLE_SALT"
DEFAULT_SALT = "cleft_bundle"
_DIGEST_BYTES = 8


def pseudonym(value: str) -> str:
    """Return the pseudonym of an identifier: 16 hexadecimal digits.

    The salt is taken from the environment variable `CLEFT_BUNDLE_SALT` at every call. Without it, the published
    default `"cleft_bundle"` is used: good for public data, but no protection for a hospital's own, because whoever
    has a list of candidate identifiers can hash each of them. A hospital sets a long secret salt and keeps it.

    Args:
        value: an identifier, e.g. a PatientID or a StudyInstanceUID. White space around it does not count.

    Raises:
        BundleError: if the identifier is empty: all unnamed patients would become one.

    Examples:
        >>> pseudonym("MRN 4711")
        '54dd8f811d8d0226'
        >>> pseudonym("MRN 4711") == pseudonym("MRN 4712")
        False
    """
    text = value.strip()
    if not text:
        raise BundleError("an empty identifier has no pseudonym: give the patient's or the study's identifier")
    return keyed_digest(text, _DIGEST_BYTES)


def keyed_digest(text: str, size: int) -> str:
    """Return `size` bytes, in hexadecimal digits, of BLAKE2b keyed by the salt."""
    return digests([text], size)[0]


def digests(texts: Iterable[str], size: int) -> list[str]:
    """:func:`keyed_digest` of many texts."""
    salt = os.environ.get(SALT_VARIABLE) or DEFAULT_SALT
    key = hashlib.blake2b(salt.encode()).digest()  # a salt of any length becomes a key of 64 bytes, BLAKE2b's longest
    return [
        hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=size, key=key).hexdigest() for text in texts
    ]
