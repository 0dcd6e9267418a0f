"""The patients that a file was made with, and what each of them was used for."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from cleft_bundle.data.item import Item
from cleft_bundle.data.pictures import PICTURE
from cleft_bundle.data.pseudonyms import SALT_VARIABLE, keyed_digest

#: Patients from whom something was learnt: weights, or a prompt. On them a network is better than on others.
LEARNT = ("weights", "prompts")
#: Patients on whom something was chosen: the epoch (or one of several classifiers), calibration, thresholds.
CHOSEN = ("epoch", "calibration", "thresholds")
ROLES = (*LEARNT, *CHOSEN)
#: What pictures are used for.
USES = ("learnt", "chosen")

#: What is counted of the training images, where the items say it; ages in bands of ten years.
COUNTED = ("view", "laterality", "sex", "manufacturer", "modality")
RARE = "rare"  # values of fewer than LEAST images, so that no single patient can be read out of the counts
UNKNOWN = "unknown"
LEAST = 5

_BYTES = 8  # a patient; among a million patients two share a digest with a chance of 1 in 37 million
_SALT_PROBE = "which salt is this?"
_OLDEST = 90
_TABLES = (*COUNTED, "age")


def salt_probe() -> str:
    """Digest that tells the present salt from others."""
    return keyed_digest(_SALT_PROBE, _BYTES)


@dataclass(frozen=True)
class Memory:
    """Patients and images that a file remembers; JSON-able as :meth:`state_dict`.

    Args:
        fingerprint: of the divided datalist of the last training.
        patients: from roles to digests of their patients, int64, sorted; every known role is there.
        unknown: roles in which patients may have been used of whom nothing is known.
        images: counts of the training images, see :func:`count_images`; those of several trainings are added.
        salt: tells one salt from another, and is not the salt itself.
        pictures: digests of the pictures that were ``learnt`` from and ``chosen`` on, as far as they were known.
        lost: number of patients by role who are remembered by their number alone.
    """

    fingerprint: str
    patients: Mapping[str, torch.Tensor]
    unknown: frozenset[str] = frozenset()
    images: Mapping[str, Any] = field(default_factory=dict)
    salt: str = field(default_factory=salt_probe)
    lost: Mapping[str, int] = field(default_factory=dict)
    pictures: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def recall(cls, stored: Mapping[str, Any] | None) -> Memory:
        """Memory from the value of ``trained_on`` in a file; an empty one for None, as in an imported checkpoint."""
        if stored is None:
            return cls("", {}, frozenset(ROLES))
        patients = stored["patients"]
        if isinstance(patients, torch.Tensor):  # before 0.7.0: whom weights and prompts were learnt from
            nobody = dict.fromkeys(("prompts", "calibration", "thresholds"), patients[:0])  # such files hold none
            known = {"weights": patients, **nobody}
            return cls(stored["fingerprint"], known, frozenset(["epoch"]), salt=stored["salt"])
        known = {role: _decoded(text) for role, text in patients.items()}
        unknown, images, lost = frozenset(stored["unknown"]), stored["images"], stored["lost"]
        pictures = {use: _decoded(text) for use, text in stored.get("pictures", {}).items()}
        return cls(stored["fingerprint"], known, unknown, images, stored["salt"], lost, pictures)

    def state_dict(self) -> dict[str, Any]:
        """The memory as JSON-able values: digests in base64, eight bytes per patient and role."""
        return {
            "fingerprint": self.fingerprint,
            "salt": self.salt,
            "patients": {role: _encoded(digests) for role, digests in self.patients.items()},
            "pictures": {use: _encoded(digests) for use, digests in self.pictures.items()},
            "unknown": sorted(self.unknown),
            "lost": dict(self.lost),
            "counts": dict(self.counts),
            "images": dict(self.images),
        }

    def also(self, digests: torch.Tensor, *roles: str) -> Memory:
        """The memory with these patients in some more roles."""
        added = {role: torch.cat([self.patients.get(role, digests[:0]), digests]).unique() for role in roles}
        return replace(self, patients={**self.patients, **added})

    def seen(self, digests: torch.Tensor, use: str) -> Memory:
        """The memory with some more pictures, for one of :data:`USES`."""
        joined = torch.cat([self.pictures.get(use, digests[:0]), digests]).unique()
        return replace(self, pictures={**self.pictures, use: joined})

    def after(self, before: Memory) -> Memory:
        """The memory of a training that started from what ``before`` made: its patients count too."""
        joined = self
        for role, digests in before.patients.items():
            joined = joined.also(digests, role)
        for use, digests in before.pictures.items():
            joined = joined.seen(digests, use)
        unknown = self.unknown | before.unknown
        lost = dict(Counter(self.lost) + Counter(before.lost))
        return replace(joined, unknown=unknown, lost=lost, images=_added(before.images, self.images))

    def forgotten(self) -> Memory:
        """The memory without its patients; how many they were stays."""
        return replace(self, patients={}, pictures={}, unknown=frozenset(ROLES), lost=self.counts)

    @property
    def counts(self) -> dict[str, int]:
        """Number of patients by role, of those that are known or were once; of both, some may be the same."""
        known = {role: len(digests) for role, digests in self.patients.items()}
        return {role: known.get(role, 0) + self.lost.get(role, 0) for role in ROLES if role in {*known, *self.lost}}

    @property
    def same_salt(self) -> bool:
        """True where its digests were made with the salt that is set now."""
        return self.salt == salt_probe()

    def count(self, digests: torch.Tensor) -> dict[str, int]:
        """Number of the given patients that it used, by role; a role of which nothing is known is absent."""
        return {role: int(torch.isin(digests, self.patients[role]).sum()) for role in ROLES if role in self.patients}

    def count_any(self, digests: torch.Tensor, roles: Sequence[str]) -> int:
        """Number of the given patients that it used in any of these roles."""
        known = [self.patients[role] for role in roles if role in self.patients]
        return int(torch.isin(digests, torch.cat(known)).sum()) if known else 0


def patient_digests(items: Iterable[Item]) -> torch.Tensor:
    """Digests of the patients of some items, int64, sorted: keyed by the salt, so that they tell no pseudonym."""
    return _tensor({patient_number(item["patient_id"]) for item in items})


def patient_number(pseudonym: str) -> int:
    """The digest of a patient."""
    return _number(keyed_digest(pseudonym, _BYTES))


def picture_digests(items: Iterable[Item]) -> torch.Tensor:
    """Digests of the pictures of some items that know theirs, int64, sorted; blank ones are none."""
    return _tensor({picture_number(item) for item in items if item.get(PICTURE)})


def picture_number(item: Item) -> int | None:
    """The digest of an item's picture, None where it is not known or blank."""
    return _number(item[PICTURE]) if item.get(PICTURE) else None


def count_images(items: Sequence[Item]) -> dict[str, Any]:
    """Count images by what their items say of them.

    Args:
        items: items of a datalist.

    Returns:
        ``images`` and ``patients``, their numbers; and for each of :data:`COUNTED` and ``age`` that any item has, from
        values (ages in years as "0-9" to "90+") to numbers of images: :data:`UNKNOWN` for images that do not say,
        :data:`RARE` for all values of fewer than :data:`LEAST` images together.
    """
    values = {name: [item.get(name) for item in items] for name in COUNTED}
    values["age"] = [age_band(item.get("age")) for item in items]
    counted = {name: _tally(column) for name, column in values.items() if any(is_said(value) for value in column)}
    return {"images": len(items), "patients": len({item["patient_id"] for item in items}), **counted}


def _tally(values: Iterable[Any]) -> dict[str, int]:
    counts = Counter(str(value) if is_said(value) else UNKNOWN for value in values)
    common = {value: count for value, count in sorted(counts.items()) if count >= LEAST or value == UNKNOWN}
    rare = counts.total() - sum(common.values())
    return {**common, **({RARE: rare} if rare else {})}


def is_said(value: Any) -> bool:
    """True for a value that an item states: not None, "" or NaN."""
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def age_band(age: float | None) -> str | None:
    """Band of ten years that an age in years lies in, "0-9" to "90+"; None where there is none."""
    if age is None or not is_said(age):
        return None
    first = min(int(age) // 10 * 10, _OLDEST)
    return f"{first}+" if first == _OLDEST else f"{first}-{first + 9}"


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of two trainings together: an image or patient of both counts twice."""
    if not one or not other:
        return {**one, **other}
    tables = [name for name in _TABLES if name in one or name in other]
    added = {
        name: dict(
            Counter(one.get(name, {UNKNOWN: one["images"]})) + Counter(other.get(name, {UNKNOWN: other["images"]}))
        )
        for name in tables
    }
    return {**{name: one[name] + other[name] for name in ("images", "patients")}, **added}


def other_salt() -> str:
    """Message for a file that was made under another salt."""
    return (
        f"its patients' pseudonyms were made with another salt (environment variable {SALT_VARIABLE}), so they cannot "
        "be compared, and a split drawn now is another one: set the salt of its training"
    )


def _number(digest: str) -> int:
    return int.from_bytes(bytes.fromhex(digest), "big", signed=True)


def _tensor(numbers: Iterable[int | None]) -> torch.Tensor:
    return torch.tensor(sorted(number for number in numbers if number is not None), dtype=torch.int64)


def _encoded(digests: torch.Tensor) -> str:
    return base64.b64encode(digests.numpy().astype("<i8").tobytes()).decode("ascii")


def _decoded(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<i8").astype(np.int64))
