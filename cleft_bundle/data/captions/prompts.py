"""Captions and class prompts from templates that a clinician can edit.

A prompt file is JSON::

    {
      "description": "what it is for, and which slots its data offers",
      "caption": ["this is a chest x ray of a patient", "with {findings}"],
      "templates": ["this is a chest x ray of a patient with {class}", "a radiograph that shows {class}"],
      "negative_templates": ["this is a chest x ray of a patient without {class}"],
      "classes": {
        "edema": {},
        "pneumonia": {"positive": ["a chest x ray with an opacity of pneumonia"]},
        "no finding": {"negative": []}
      }
    }

``caption`` is a list of clauses, or a list of such lists where an image shall have several captions. A clause whose
slot has no value is dropped; the rest are joined by single spaces. A clause may also be a group that keeps a sentence
or a section whole: see :mod:`cleft_bundle.data.captions.templates`.

``classes`` names, in the order of the labels, each class and the prompts that stand for it in zero-shot scoring:

- ``{"positive": [...], "negative": [...]}`` gives what is said where the class is present and where it is absent.
  What is left out is made from ``templates`` and ``negative_templates``, whose ``{class}`` is the name of the class.
  ``{}`` takes both from the templates; ``"negative": []`` says that there is none.
- A plain list of prompts is the positive ones, without negatives: ``"edema": ["a chest x ray with edema"]``.
- A list in place of the object, ``"classes": ["edema", "pneumonia"]``, gives names alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from cleft_bundle.data.captions.templates import Template, parse_template, slots_of, texts_of
from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.files import read_object

_KEYS = ("description", "caption", "templates", "negative_templates", "classes")
#: From each form of a class's prompts to the key of its templates.
_FORMS = {"positive": "templates", "negative": "negative_templates"}


@dataclass(frozen=True)
class PromptSet:
    """Caption templates and the prompts of each class.

    Args:
        caption: a list of clauses as at the head of :mod:`cleft_bundle.data.captions.templates`, or a list of such
            lists: several templates. Each has a slot.
        classes: from each class name to its prompts (one or more); the order is the order of the labels.
        negatives: from some class names to the prompts that say that the class is absent (one or more).
        description: a note to whoever edits the file; not used in captions.
        source: where it came from, for error messages.

    Raises:
        BundleError: a clause, a class or a prompt is not as above, two classes have one name but for case, spaces and
            width of characters, two classes share a prompt, or a class has the same prompt in both forms.
    """

    caption: Sequence[Any]
    classes: dict[str, list[str]]
    negatives: dict[str, list[str]] = field(default_factory=dict)
    description: str = ""
    source: str = "prompts"

    def __post_init__(self) -> None:
        if silent := [where for where, template in self._templates.items() if not any(template.slots())]:
            raise BundleError(f"{silent[0]} has no clause with a slot such as {{findings}}")
        where = f"{self.source}: key 'classes'"
        if not self.classes:
            raise BundleError(f"{where} names no class")
        check_names(self.classes, where)
        owners: dict[str, str] = {}
        for name, prompts in self.classes.items():
            if not name.strip() or _has_gaps(prompts):
                raise BundleError(f"{where}, '{name}': expected a name and one or more prompts")
            for prompt in prompts:
                owner = owners.setdefault(prompt, name)
                if owner != name:
                    raise BundleError(f"{where}: '{owner}' and '{name}' share the prompt '{prompt}'")
        for name, prompts in self.negatives.items():
            if name not in self.classes or _has_gaps(prompts):
                raise BundleError(f"{where}, '{name}': expected a class and one or more negative prompts")
            if both := set(prompts) & set(self.classes[name]):
                raise BundleError(f"{where}, '{name}': the prompt '{min(both)}' is both positive and negative")

    @cached_property
    def _templates(self) -> dict[str, Template]:
        """The templates by where they stand, for errors."""
        where = f"{self.source}: key 'caption'"
        if not isinstance(self.caption, str) and self.caption and isinstance(self.caption[0], list | tuple):
            places = [f"{where}, template {place}" for place in range(1, len(self.caption) + 1)]
            return {at: parse_template(clauses, at) for at, clauses in zip(places, self.caption, strict=True)}
        return {where: parse_template(self.caption, where)}

    @cached_property
    def _slots(self) -> list[str]:
        return list(dict.fromkeys(slot for template in self._templates.values() for slot in template.slots()))

    def write(self, words: Mapping[str, object]) -> list[str]:
        """Write the captions of an image.

        Args:
            words: what the slots stand for. A value that is absent, None, NaN or blank drops every clause that needs
                it; whole numbers are written without a decimal point.

        Returns:
            The distinct captions in the order of the templates; empty where no template had a slot to fill, for fixed
            text alone says nothing about an image.
        """
        texts = texts_of(words, self._slots)
        captions = (template.fill(texts) for template in self._templates.values())
        return list(dict.fromkeys(caption for caption in captions if caption))

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
        for where, template in self._templates.items():
            for slot in template.slots():
                if slot not in offered:
                    raise BundleError(
                        f"{where}: nothing fills the slot {{{slot}}}{nearest(slot, offered)}; "
                        f"slots offered: {', '.join(sorted(offered))}"
                    )


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse two names of classes that people read as one: equal but for case, spaces and width of characters.

    Raises:
        BundleError: begins with ``where``, and names both.
    """
    seen: dict[str, str] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if plain in seen:
            raise BundleError(f"{where}: '{seen[plain]}' and '{name}' are one name: give each class its own")
        seen[plain] = name


def describe_findings(names: Iterable[str]) -> str:
    """Join the names of findings for a caption.

    Args:
        names: in the order in which they shall be read.

    Returns:
        ``"edema, pleural effusion"``; empty for no name.
    """
    return ", ".join(names)


def names_as_prompts(names: Iterable[str]) -> dict[str, list[str]]:
    """Let each class be prompted by its bare name, which a learnt context stands before.

    Examples:
        >>> names_as_prompts(["edema", "no finding"])
        {'edema': ['edema'], 'no finding': ['no finding']}
    """
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

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("prompts.json").write_text(
        ...     '{"caption": ["a chest x ray of a patient with {findings}"],'
        ...     ' "classes": {"edema": ["a chest x ray with edema"], "no finding": ["a normal chest x ray"]}}'
        ... )
        >>> load_prompts("prompts.json").classes["edema"]
        ['a chest x ray with edema']
    """
    path = Path(path)
    content = read_object(path)
    for key in content:
        if key not in _KEYS:
            raise BundleError(f"{path}: key '{key}' is unknown{nearest(key, _KEYS)}; expected {', '.join(_KEYS)}")
    description = content.get("description", "")
    if not isinstance(description, str):
        raise BundleError(f"{path}: key 'description': expected text")
    classes, negatives = _read_classes(content, f"{path}: key")
    return PromptSet(content.get("caption", []), classes, negatives, description, str(path))


def _read_classes(content: Mapping[str, Any], where: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Positive and negative prompts of each class that has them."""
    entries = _class_entries(content.get("classes"), f"{where} 'classes'")
    found: dict[str, dict[str, list[str]]] = {}
    for form, key in _FORMS.items():
        templates = _class_templates(content[key], f"{where} '{key}'") if key in content else []
        if templates and all(form in given for given in entries.values()):
            raise BundleError(f"{where} '{key}': no class leaves its prompts to them")
        made = {name: [text.format_map({"class": name}) for text in templates] for name in entries}
        found[form] = {name: prompts for name, given in entries.items() if (prompts := given.get(form, made[name]))}
    for name in entries:
        if name not in found["positive"]:
            raise BundleError(
                f"{where} 'classes', '{name}': has no prompt, and there is no key 'templates' to make one"
            )
    return found["positive"], found["negative"]


def _class_entries(classes: object, where: str) -> dict[str, dict[str, list[str]]]:
    """What the file says of each class, in the one form of an object with positive and negative."""
    if _is_texts(classes):
        if repeated := [name for name in classes if classes.count(name) > 1]:
            raise BundleError(f"{where}: '{repeated[0]}' is repeated")
        return {name: {} for name in classes}
    if not isinstance(classes, dict):
        raise BundleError(f"{where}: expected a list of names, or an object from names to prompts")
    entries: dict[str, dict[str, list[str]]] = {}
    for name, value in classes.items():
        given = {"positive": value, "negative": []} if isinstance(value, list) else value
        if not isinstance(given, dict):
            raise BundleError(f"{where}, '{name}': expected a list of prompts, or an object")
        for key, prompts in given.items():
            if key not in _FORMS:
                raise BundleError(
                    f"{where}, '{name}': key '{key}' is unknown{nearest(key, _FORMS)}; expected {', '.join(_FORMS)}"
                )
            if not _is_texts(prompts) or not (prompts or key == "negative"):
                raise BundleError(f"{where}, '{name}': expected a list of {key} prompts")
        entries[name] = given
    return entries


def _class_templates(templates: object, where: str) -> list[str]:
    if not _is_texts(templates) or not templates:
        raise BundleError(f"{where}: expected a list of prompts with the slot {{class}}")
    for template in templates:
        if set(slots_of(template, where)) != {"class"}:
            raise BundleError(f"{where}: '{template}': expected the slot {{class}} and no other")
    return templates


def _has_gaps(prompts: Sequence[str]) -> bool:
    return not prompts or not all(prompt.strip() for prompt in prompts)


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
