"""Captions and class prompts from templates that a clinician can edit.

A prompt file is JSON::

    {
      "description": "what it is for, and which slots its data offers",
      "caption": ["this is a chest x ray of a patient", "with {findings}"],
      "classes": {"edema": ["this is a chest x ray of a patient with edema"]}
    }

``caption`` is a list of clauses. A clause whose slot has no value is dropped; the rest are joined by single spaces.
``classes`` names, in the order of the labels, each class and the prompts that stand for it in zero-shot scoring.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any, TypeGuard

from cleft_bundle.data.tables import nearest
from cleft_bundle.errors import BundleError

_KEYS = ("description", "caption", "classes")


@dataclass(frozen=True)
class PromptSet:
    """A caption template and the prompts of each class.

    Args:
        caption: clauses with ``{slots}``; at least one clause has a slot.
        classes: from each class name to its prompts (one or more); the order is the order of the labels.
        description: a note to whoever edits the file; not used in captions.
        source: where it came from, for error messages.

    Raises:
        BundleError: a clause, a class or a prompt is not as above, or two classes share a prompt.
    """

    caption: tuple[str, ...]
    classes: dict[str, list[str]]
    description: str = ""
    source: str = "prompts"

    def __post_init__(self) -> None:
        if not any(slots_of(clause, self.source) for clause in self.caption):
            raise BundleError(f"{self.source}: key 'caption' has no clause with a slot such as {{findings}}")
        if not self.classes:
            raise BundleError(f"{self.source}: key 'classes' names no class")
        owners: dict[str, str] = {}
        for name, prompts in self.classes.items():
            if not name.strip() or not prompts or not all(prompt.strip() for prompt in prompts):
                raise BundleError(f"{self.source}: key 'classes', '{name}': expected a name and one or more prompts")
            for prompt in prompts:
                owner = owners.setdefault(prompt, name)
                if owner != name:
                    raise BundleError(
                        f"{self.source}: key 'classes': '{owner}' and '{name}' share the prompt '{prompt}'"
                    )

    def check_classes(self, known: Collection[str], kind: str, of: str) -> None:
        """Refuse classes that a dataset has no label for.

        Args:
            known: the names that the dataset's labels can have.
            kind: what such a name is, such as ``finding``.
            of: what has these names, such as ``CheXpert``.

        Raises:
            BundleError: a class is none of them; names the nearest.
        """
        for name in self.classes:
            if name not in known:
                raise BundleError(
                    f"{self.source}: class '{name}' is no {kind} of {of}{nearest(name, known)}; "
                    f"{kind}s: {', '.join(known)}"
                )

    def check_slots(self, offered: Collection[str]) -> None:
        """Refuse a caption whose slots no data will ever fill.

        Args:
            offered: the names of the values that the dataset gives.

        Raises:
            BundleError: a slot is none of them; names the nearest.
        """
        for clause in self.caption:
            for slot in slots_of(clause, self.source):
                if slot not in offered:
                    raise BundleError(
                        f"{self.source}: key 'caption': nothing fills the slot {{{slot}}}{nearest(slot, offered)}; "
                        f"slots offered: {', '.join(sorted(offered))}"
                    )


@lru_cache(maxsize=256)
def slots_of(clause: str, source: str = "caption") -> tuple[str, ...]:
    """Names of the slots in a clause.

    Args:
        clause: text with ``{name}`` slots.
        source: where the clause came from, for the error.

    Returns:
        The names in order; empty for fixed text.

    Raises:
        BundleError: a brace is unpaired, or a slot is not a plain name.
    """
    try:
        parts = list(Formatter().parse(clause))
    except ValueError as error:
        raise BundleError(f"{source}: clause '{clause}': {error}") from error
    slots = []
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise BundleError(f"{source}: clause '{clause}': a slot is a plain name in braces, such as {{findings}}")
        slots.append(name)
    return tuple(slots)


def fill(clauses: Sequence[str], values: Mapping[str, object]) -> str | None:
    """Fill a caption template.

    Args:
        clauses: text with ``{slots}``.
        values: what the slots stand for. A value that is absent, None, NaN or blank drops every clause that needs
            it; whole numbers are written without a decimal point.

    Returns:
        The clauses joined by single spaces, or None where no slot at all was filled: fixed text alone says nothing
        about an image.
    """
    texts = {name: text for name, value in values.items() if (text := _text(value))}
    kept = []
    filled = False
    for clause in clauses:
        slots = slots_of(clause)
        if all(slot in texts for slot in slots):
            kept.append(clause.format_map(texts))
            filled = filled or bool(slots)
    return " ".join(" ".join(kept).split()) if filled else None


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def describe_findings(names: Iterable[str]) -> str:
    """Join the names of findings for a caption.

    Args:
        names: in the order in which they shall be read.

    Returns:
        ``"edema, pleural effusion"``; empty for no name.
    """
    return ", ".join(names)


def names_as_prompts(names: Iterable[str]) -> dict[str, list[str]]:
    """Let each class be prompted by its bare name, which a learnt context stands before."""
    return {name: [name] for name in names}


def load_prompts(path: str | Path) -> PromptSet:
    """Read a prompt file.

    Args:
        path: a JSON file as described at the head of this module.

    Returns:
        The caption template and the class prompts.

    Raises:
        BundleError: the file is missing or no JSON object, or a key is missing, unknown, repeated or of another kind
            than expected; names the file and the key.
    """
    path = Path(path)
    content = _read_object(path)
    for key in content:
        if key not in _KEYS:
            raise BundleError(f"{path}: key '{key}' is unknown{nearest(key, _KEYS)}; expected {', '.join(_KEYS)}")
    caption, classes, description = content.get("caption"), content.get("classes"), content.get("description", "")
    if not _is_texts(caption):
        raise BundleError(f"{path}: key 'caption': expected a list of clauses")
    if not isinstance(classes, dict):
        raise BundleError(f"{path}: key 'classes': expected an object from class names to lists of prompts")
    for name, prompts in classes.items():
        if not _is_texts(prompts):
            raise BundleError(f"{path}: key 'classes', '{name}': expected a list of prompts")
    if not isinstance(description, str):
        raise BundleError(f"{path}: key 'description': expected text")
    return PromptSet(tuple(caption), classes, description, str(path))


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; a key that is repeated, which JSON readers let pass, is an error."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise BundleError(f"{path}: key '{repeated[0]}' is repeated")
        return dict(pairs)

    if not path.is_file():
        raise BundleError(f"{path}: there is no such prompt file")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: expected UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise BundleError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: expected a JSON object with the keys {', '.join(_KEYS)}")
    return content


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
