"""The little language of caption templates: clauses with slots, and groups of clauses.

A template is a list of clauses. A clause is text with ``{slots}``, such as ``"with {findings}"``; it is dropped where
one of its slots has no value. Where sentences have to stay whole, a clause may be a group, an object with these keys:

- ``clauses``: the list of its clauses, which may be groups again. Needed.
- ``start``: text before them, such as a heading or the subject of a sentence.
- ``join``: text between them; a space where it is not given.
- ``last``: text before the last of several; the same as ``join`` where it is not given.
- ``end``: text behind them, such as a full stop; left out where they end with it already.
- ``when``: an object from slots to lists of values: the group is written for these values alone.

A group in which no slot was filled is dropped with its start and its end; so is a whole template. Fixed text alone says
nothing about an image. A group with a ``when`` that holds counts as filled.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from cleft_bundle.errors import BundleError, nearest

_TEXTS = ("start", "join", "last", "end")
_KEYS = ("clauses", *_TEXTS, "when")


@dataclass(frozen=True)
class Clause:
    """Text with slots.

    Args:
        text: as the file has it.
        slots: names of its slots, in order.
    """

    text: str
    slots: tuple[str, ...]


@dataclass(frozen=True)
class Template:
    """A parsed list of clauses, or a group of them; fields as at the head of this module."""

    clauses: tuple[Clause | Template, ...]
    start: str = ""
    join: str = " "
    last: str = " "
    end: str = ""
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def slots(self) -> Iterator[str]:
        """Names of all slots, in order; some may come several times."""
        yield from (slot for slot, _ in self.when)
        for clause in self.clauses:
            yield from clause.slots() if isinstance(clause, Template) else clause.slots

    def fill(self, texts: Mapping[str, str]) -> str:
        """Fill the slots.

        Args:
            texts: the slots that have a value; none of them blank.

        Returns:
            The text with single spaces; empty where nothing was filled.
        """
        if not all(texts.get(slot) in values for slot, values in self.when):
            return ""
        filled = bool(self.when)
        kept = []
        for clause in self.clauses:
            if isinstance(clause, Template):
                text = clause.fill(texts)
                filled = filled or bool(text)
            elif all(slot in texts for slot in clause.slots):
                text = clause.text.format_map(texts)
                filled = filled or bool(clause.slots)
            else:
                continue
            if text:
                kept.append(text)
        if not filled:
            return ""
        *before, text = kept
        if before:
            text = self.join.join(before) + self.last + text
        text = f"{self.start} {text}".rstrip()
        return " ".join((text if text.endswith(self.end) else text + self.end).split())


def parse_template(clauses: object, where: str) -> Template:
    """Read a list of clauses as a JSON file has it.

    Args:
        clauses: see the head of this module.
        where: the file and the key, for the error.

    Returns:
        The template.

    Raises:
        BundleError: something is not as described; names it.
    """
    if not isinstance(clauses, list | tuple) or not clauses:
        raise BundleError(f"{where}: expected a list of clauses")
    return Template(tuple(_parse(clause, f"{where}, clause {place}") for place, clause in enumerate(clauses, 1)))


def slots_of(text: str, where: str) -> tuple[str, ...]:
    """Names of the slots in a text.

    Args:
        text: with ``{name}`` slots.
        where: the file and the key, for the error.

    Returns:
        The names in order; empty for fixed text.

    Raises:
        BundleError: a brace is unpaired, or a slot is not a plain name.
    """
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise BundleError(f"{where}: '{text}': {error}") from error
    slots = []
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise BundleError(f"{where}: '{text}': a slot is a plain name in braces, such as {{findings}}")
        slots.append(name)
    return tuple(slots)


def texts_of(values: Mapping[str, object], slots: Collection[str]) -> dict[str, str]:
    """Texts that the slots stand for.

    Args:
        values: by slot; None, NaN and blanks count as absent, whole numbers are written without a decimal point.
        slots: those that are wanted.

    Returns:
        The slots that have a value.
    """
    return {slot: text for slot in slots if (text := _text(values.get(slot)))}


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _parse(clause: object, where: str) -> Clause | Template:
    if isinstance(clause, str):
        return Clause(clause, slots_of(clause, where))
    if not isinstance(clause, dict):
        raise BundleError(f"{where}: expected text, or an object with the key 'clauses'")
    for key in clause:
        if key not in _KEYS:
            raise BundleError(f"{where}: key '{key}' is unknown{nearest(key, _KEYS)}; expected {', '.join(_KEYS)}")
    texts: dict[str, Any] = {key: clause[key] for key in _TEXTS if key in clause}
    for key, text in texts.items():
        if not isinstance(text, str) or slots_of(text, f"{where}, key '{key}'"):
            raise BundleError(f"{where}, key '{key}': expected text without slots")
    inner = parse_template(clause.get("clauses"), f"{where}, key 'clauses'").clauses
    return Template(
        inner,
        **{"last": texts.get("join", " "), **texts},
        when=_parse_when(clause.get("when", {}), f"{where}, key 'when'"),
    )


def _parse_when(when: object, where: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(when, dict) or not all(
        slot.isidentifier() and isinstance(values, list) and values and all(isinstance(v, str | int) for v in values)
        for slot, values in when.items()
    ):
        raise BundleError(f'{where}: expected an object from slots to lists of values, such as {{"density": [3, 4]}}')
    return tuple((slot, tuple(_text(value) for value in values)) for slot, values in when.items())
