"""What a checkpoint remembers of its data: enough to notice that a patient it was trained on is being evaluated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cleft_bundle import files
from cleft_bundle.data.datalists import fingerprint
from cleft_bundle.data.pseudonyms import SALT_VARIABLE, keyed_digest
from cleft_bundle.errors import BundleError

logger = logging.getLogger(__name__)

MADE_BY = "training writes it, or pass the path of another one"
_BYTES = 8  # a patient; among a million patients two share a digest with a chance of 1 in 37 million
_SALT_PROBE = "which salt is this?"


class TrainedOn:
    """The split that a network is trained on, and digests of the patients of all its trainings.

    A digest is eight bytes of the patient's pseudonym, keyed by the salt, so 65,000 patients take half a megabyte.

    Args:
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        pretrained: the checkpoint that training starts from, whose patients count as well; None for none.

    Raises:
        BundleError: where the checkpoint of ``pretrained`` does not exist or knows patients under another salt.
    """

    def __init__(self, splits: Mapping[str, Sequence[dict[str, Any]]], pretrained: str | None = None) -> None:
        self.fingerprint = fingerprint(splits)
        self.patients = _digests(splits["train"])
        before = _stored(pretrained) if pretrained else None
        if before is not None:
            if before["salt"] != _salt():
                raise BundleError(f"{pretrained}: {_other_salt()}")
            self.patients = torch.cat([self.patients, before["patients"]]).unique()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps under ``trained_on``.

        Returns:
            ``fingerprint`` of the divided datalist, ``salt`` (by which another one is told, not the salt itself), and
            ``patients``, int64 [number of patients], sorted.
        """
        return {"fingerprint": self.fingerprint, "salt": _salt(), "patients": self.patients}


def check_not_trained_on(path: str | Path, items: Sequence[dict[str, Any]], allow: bool = False) -> None:
    """Stop an evaluation on patients whom the checkpoint was trained on.

    A checkpoint that knows no patients, such as an imported one, is a warning.

    Args:
        path: the checkpoint.
        items: what is to be evaluated.
        allow: make a warning of the error.

    Raises:
        BundleError: names how many of the patients the checkpoint was trained on, or says that their pseudonyms were
            made with another salt, under which nothing can be compared.
    """
    stored = _stored(path)
    if stored is None:
        logger.warning("%s does not say whom it was trained on: whether the evaluated patients are new to it is "
                       "unknown", path)  # fmt: skip
        return
    patients = _digests(items)
    if stored["salt"] != _salt():
        message = _other_salt()
    elif known := int(torch.isin(patients, stored["patients"]).sum()):
        message = (
            f"it was trained on {known} of the {len(patients)} patients that are to be evaluated "
            f"(its split has the fingerprint {stored['fingerprint'][:16]})"
        )
    else:
        return
    if not allow:
        raise BundleError(
            f"{path}: {message}; where that is meant, or the sets share nothing but the form of their identifiers, "
            "pass --allow_trained_patients true"
        )
    logger.warning("%s: %s; allowed by allow_trained_patients", path, message)


def _digests(items: Iterable[dict[str, Any]]) -> torch.Tensor:
    """Digests of the patients of some items, int64, sorted."""
    patients = {item["patient_id"] for item in items}
    numbers = [int.from_bytes(bytes.fromhex(keyed_digest(name, _BYTES)), "big", signed=True) for name in patients]
    return torch.tensor(sorted(numbers), dtype=torch.int64)


def _salt() -> str:
    return keyed_digest(_SALT_PROBE, _BYTES)


def _other_salt() -> str:
    return (
        f"its patients' pseudonyms were made with another salt (environment variable {SALT_VARIABLE}), so they cannot "
        "be compared, and a split drawn now is another one: set the salt of its training"
    )


def _stored(path: str | Path) -> dict[str, Any] | None:
    state = files.load(path, MADE_BY)
    return state.get("trained_on") if isinstance(state, dict) else None
