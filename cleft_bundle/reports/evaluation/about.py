"""What only people can say of an evaluation: a JSON file that they fill in, for the head of the page."""

from __future__ import annotations

import json
from pathlib import Path

from cleft_bundle.errors import BundleError, nearest

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
    place = Path(path)
    if not place.is_file():
        raise BundleError(f"about: there is no file {path}")
    try:
        content = json.loads(place.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise BundleError(f"about: {path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"about: {path} holds no object with keys such as intended_use")
    for key, value in content.items():
        if key not in FIELDS:
            raise BundleError(f"about: {path} has the key '{key}'{nearest(key, FIELDS)}; known are {', '.join(FIELDS)}")
        if not isinstance(value, str):
            raise BundleError(f"about: {path}: '{key}' is to be a text, got {value!r}")
    return {key: content[key].strip() for key in FIELDS if content.get(key, "").strip()}
