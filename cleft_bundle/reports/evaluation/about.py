"""The part of an evaluation that only people know: a JSON file that they fill in, for the head of the page."""

from __future__ import annotations

from pathlib import Path

from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.files import read_object

#: The keys of the file, and what they are called on the page.
FIELDS = {
    "intended_use": "Intended use",
    "intended_users": "Intended users",
    "setting": "Setting and time of the images",
    "eligibility": "Who was included, and who not",
    "reference_standard": "Reference standard",
    "readers": "Who set it, knowing what",
    "sample_size": "Why so many",
    "limits": "Limits",
    "funding": "Funding and interests",
    "contact": "Contact",
}


def read_about(path: str | Path | None) -> dict[str, str]:
    """Read the file, such as the template ``docs/about_evaluation.json`` once it is filled in.

    Args:
        path: the file; None: there is none.

    Returns:
        those of :data:`FIELDS` that hold text, in that order.

    Raises:
        BundleError: where the file does not exist, is no JSON object, or has an unknown key or a value that is no text.
    """
    if path is None:
        return {}
    content = read_object(path, f"about: {path}")
    for key, value in content.items():
        if key not in FIELDS:
            raise BundleError(f"about: {path} has the key '{key}'{nearest(key, FIELDS)}; known are {', '.join(FIELDS)}")
        if not isinstance(value, str):
            raise BundleError(f"about: {path}: '{key}' is to be a text, got {value!r}")
    return {key: content[key].strip() for key in FIELDS if content.get(key, "").strip()}
