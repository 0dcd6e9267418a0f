"""Whom a checkpoint was trained and chosen on: enough to notice that such a patient is being evaluated."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from cleft_bundle import files
from cleft_bundle.checkpoints.patient_roles import (
    CHOSEN,
    LEARNT,
    ROLES,
    USES,
    Memory,
    count_images,
    other_salt,
    patient_digests,
    patient_number,
    picture_digests,
    picture_number,
)
from cleft_bundle.data.datalists import fingerprint
from cleft_bundle.data.item import Item
from cleft_bundle.data.pictures import PICTURE
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks.classifiers.zero_shot import decode_settings

logger = logging.getLogger(__name__)

MADE_BY = "training writes it, or pass the path of another one"


class TrainedOn:
    """The split that a network is trained on, and digests of the patients of all its trainings by their roles.

    The training patients count for what is learnt, the validation patients for the choice of the epoch. A digest is
    eight bytes of the patient's pseudonym, keyed by the salt, so 65,000 patients take less than a megabyte.

    Args:
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        pretrained: the file, or files, that training starts from, whose patients count in their roles as well.
        learnt: what is learnt from the training patients, ``weights`` or ``prompts``.
        remember: keep digests of the patients. Otherwise their numbers alone are kept, and no evaluation can tell
            whether its patients are new.

    Raises:
        BundleError: where a file of ``pretrained`` does not exist or knows patients under another salt.
    """

    def __init__(
        self,
        splits: Mapping[str, Sequence[Item]],
        pretrained: str | Sequence[str] | None = None,
        learnt: str = "weights",
        remember: bool = True,
    ) -> None:
        require_one_of("learnt", learnt, LEARNT)
        nobody = dict.fromkeys(ROLES, patient_digests([]))
        images = count_images(splits["train"])
        self._validation = patient_digests(splits["validation"])
        self._remember = remember
        memory = Memory(fingerprint(splits), nobody, images=images).also(patient_digests(splits["train"]), learnt)
        self.memory = memory.also(self._validation, "epoch")
        for path in [pretrained] if isinstance(pretrained, str) else pretrained or ():
            before = recall(path)
            if before.patients and not before.same_salt:
                raise BundleError(f"{path}: {other_salt()}")
            self.memory = self.memory.after(before)

    def calibrated(self) -> TrainedOn:
        """The same where calibration and thresholds were chosen on the validation patients, too."""
        other = copy.copy(self)
        other.memory = self.memory.also(self._validation, "calibration", "thresholds")
        return other

    def see(self, splits: Mapping[str, Sequence[Item]]) -> None:
        """Remember the pictures of the images too.

        Args:
            splits: ``train`` and ``validation``, items with the digest of their picture where it is known, see
                :func:`cleft_bundle.data.known_pictures`.
        """
        for split, use in zip(("train", "validation"), USES, strict=True):
            self.memory = self.memory.seen(picture_digests(splits[split]), use)

    def state_dict(self) -> dict[str, Any]:
        """Value of ``trained_on`` in a file.

        Returns:
            :meth:`Memory.state_dict`, JSON-able: ``fingerprint`` of the divided datalist, ``salt`` (by which another
            one is told, not the salt itself), ``patients`` (role to digests), ``unknown`` (roles of which not all is
            known), ``counts`` (role to number of patients) and ``images`` (counts of the training images).
        """
        return (self.memory if self._remember else self.memory.forgotten()).state_dict()


#: What knows whom it was made with: a file, the provenance of a classifier, or a training that goes on.
Source: TypeAlias = str | Path | Mapping[str, Any] | TrainedOn


def roles(source: Source, items: Sequence[Item]) -> dict[str, int]:
    """Count the patients whom a file was made with, by what they were used for.

    Args:
        source: a checkpoint, a ``model.pt``, the provenance of a classifier, or what a training remembers by now.
        items: items with ``patient_id``, such as those to be evaluated.

    Returns:
        from each of ``weights``, ``prompts``, ``epoch``, ``calibration`` and ``thresholds`` to how many of the
        items' patients were used for it. A role of which the file says nothing is absent (see :func:`unknown_roles`);
        all are where it knows no patients or knows them under another salt.

    Raises:
        BundleError: where the file does not exist or cannot be read.
    """
    memory = recall(source)
    return memory.count(patient_digests(items)) if memory.same_salt else {}


def unknown_roles(source: Source) -> tuple[str, ...]:
    """The roles in which a file, or one that it started from, may have used patients of whom it says nothing.

    Args:
        source: as for :func:`roles`.
    """
    memory = recall(source)
    return tuple(role for role in ROLES if role in memory.unknown or not memory.same_salt)


def picture_roles(source: Source, items: Sequence[Item]) -> dict[str, int]:
    """Count the images whose pictures a file was made with, under whatever patient.

    Args:
        source: as for :func:`roles`.
        items: items with the digest of their picture where it is known, of :func:`cleft_bundle.data.known_pictures` or
            :func:`cleft_bundle.data.read_pictures`.

    Returns:
        ``known``, of how many images the picture is known, ``learnt`` and ``chosen``, how many show a picture that was
        learnt from, or chosen on; empty where the file knows no pictures.

    Raises:
        BundleError: where the file does not exist or cannot be read.
    """
    memory = recall(source)
    if not memory.pictures or not memory.same_salt:
        return {}
    counts = {"known": sum(PICTURE in item for item in items)}
    for use, digests in memory.pictures.items():
        used = set(digests.tolist())
        counts[use] = sum(picture_number(item) in used for item in items)
    return counts


def check_pictures(source: Source, items: Sequence[Item]) -> dict[str, int]:
    """Say in the log which pictures a file was made with though their patients are others; see :func:`picture_roles`.

    Args:
        source: as for :func:`roles`.
        items: what is to be evaluated, with the digests of their pictures.

    Returns:
        the counts of the images whose patients are new to the file.
    """
    memory = recall(source)
    known = {number for digests in memory.patients.values() for number in digests.tolist()}
    new = [item for item in items if patient_number(item["patient_id"]) not in known]
    counts = picture_roles(source, new)
    if counts.get("learnt") or counts.get("chosen"):
        logger.warning("%s of the %d images to be evaluated are pictures that it was trained on, and %s that it was "
                       "chosen on, though under other patients: what is measured on them is too good",
                       counts.get("learnt", 0), len(items), counts.get("chosen", 0))  # fmt: skip
    return counts


def training_images(source: Source) -> dict[str, Any]:
    """Counts of the images that a file was trained on, see :func:`count_images`; empty where it does not say.

    Args:
        source: as for :func:`roles`.
    """
    return dict(recall(source).images)


def recall(source: Source) -> Memory:
    """Memory of the patients that a file was made with.

    Args:
        source: as for :func:`roles`.
    """
    return source.memory if isinstance(source, TrainedOn) else Memory.recall(_stored(source))


def provenance_of(
    path: str | Path, calibrated_on: Sequence[Item] | None = None, remember: bool = True
) -> dict[str, Any]:
    """Provenance of a classifier that is built from a checkpoint, for its own file.

    Args:
        path: the checkpoint.
        calibrated_on: items on which calibration and thresholds of the classifier are chosen; None: they are not.
        remember: keep digests of the patients, see :class:`TrainedOn`.

    Returns:
        ``run``, the run that trained the checkpoint, and ``trained_on``, as in :meth:`TrainedOn.state_dict`.

    Raises:
        BundleError: where the checkpoint does not exist, or knows its patients under another salt than that of
            ``calibrated_on``.
    """
    state = files.load(path, MADE_BY)
    memory = recall(state)
    if calibrated_on is not None:
        if memory.patients and not memory.same_salt:
            raise BundleError(f"{path}: {other_salt()}")
        memory = memory.also(patient_digests(calibrated_on), "calibration", "thresholds")
    memory = memory if remember else memory.forgotten()
    return {"run": dict(state.get("run") or {}), "trained_on": memory.state_dict()}


def check_not_trained_on(
    path: str | Path | Mapping[str, Any],
    items: Sequence[Item],
    allow: bool = False,
    split: str = "",
    allow_chosen: bool = False,
) -> None:
    """Stop an evaluation on patients whom the checkpoint was trained on, or a test on patients who chose it.

    What is measured on patients from whom weights or prompts were learnt is no estimate at all: an error. What is
    measured on patients on whom epoch, calibration or thresholds were chosen is too good: an error where the split is
    called ``test``, a warning in any other. A file that knows no patients, or not all roles, is a warning.

    Args:
        path: the checkpoint or ``model.pt``, or the provenance of a classifier.
        items: what is to be evaluated.
        allow: make a warning of the errors.
        split: what they are called; "" where nothing is measured on them, so that only learning counts.
        allow_chosen: make a warning of the error about patients who chose something.

    Raises:
        BundleError: names how many of the patients were used for what, or says that their pseudonyms were made with
            another salt, under which nothing can be compared.
    """
    memory, patients = recall(path), patient_digests(items)
    name = "the classifier" if isinstance(path, Mapping) else str(path)
    if not memory.patients:
        logger.warning("%s does not say whom it was trained on: whether the evaluated patients are new to it is "
                       "unknown", name)  # fmt: skip
        return
    if not memory.same_salt:
        _refuse(name, other_salt(), allow, _ALLOW)
        return
    if known := memory.count_any(patients, LEARNT):
        message = (
            f"it was trained on {known} of the {len(patients)} patients that are to be evaluated "
            f"({_by_role(memory, patients, LEARNT)}; its split has the fingerprint {memory.fingerprint[:16]})"
        )
        _refuse(name, message, allow, _ALLOW)
    if split and (known := memory.count_any(patients, CHOSEN)):
        message = (
            f"{known} of the {len(patients)} patients of split {split} are those on whom it was chosen "
            f"({_by_role(memory, patients, CHOSEN)}): what is measured on them is too good"
        )
        _refuse(name, message, allow or allow_chosen or split != "test", _ALLOW_CHOSEN)
    if split and (unknown := [role for role in ROLES if role in memory.unknown]):
        logger.warning("%s does not say which patients were used for %s: the evaluated ones may be among them",
                       name, ", ".join(unknown))  # fmt: skip


_ALLOW = (
    "where that is meant, or the sets share nothing but the form of their identifiers, pass "
    "--allow_trained_patients true"
)
_ALLOW_CHOSEN = (
    "evaluate other patients, or these as --evaluate_split validation; where a test on them is meant, pass "
    "--allow_chosen_patients true"
)


def _refuse(name: str, message: str, allow: bool, otherwise: str) -> None:
    if not allow:
        raise BundleError(f"{name}: {message}; {otherwise}")
    logger.warning("%s: %s", name, message)


def _by_role(memory: Memory, patients: Any, among: Sequence[str]) -> str:
    counts = memory.count(patients)
    return ", ".join(f"{role} {counts[role]}" for role in among if counts.get(role))


def _stored(source: str | Path | Mapping[str, Any]) -> Mapping[str, Any] | None:
    state = source if isinstance(source, Mapping) else files.load(source, MADE_BY)
    if isinstance(state, Mapping) and "_extra_state" in state:  # a model.pt
        state = decode_settings(state["_extra_state"]).get("provenance")
    return state.get("trained_on") if isinstance(state, Mapping) else None
