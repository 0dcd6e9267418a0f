"""The begin of a run: refusals before anything expensive is done, what is loaded, and the folders that are locked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cleft_bundle.checkpoints import RunIdentity, check_not_trained_on, check_pictures, load_trained
from cleft_bundle.data.item import Item
from cleft_bundle.data.pictures import known_pictures
from cleft_bundle.data.usable_labels import usable_items
from cleft_bundle.engines.linear_probe import check_learnable
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import CLEFT, PromptLearner, ZeroShotClassifier
from cleft_bundle.vocabulary import Task


def begin_evaluation(
    identity: RunIdentity,
    checkpoint: str | None,
    evaluated_items: Sequence[Item],
    validation_items: Sequence[Item],
    evaluate_split: str,
    allow_trained_patients: bool = False,
    allow_chosen_patients: bool = False,
    comparison: object = None,
) -> None:
    """Refuse patients that a checkpoint knows, and lock the folders of the run.

    Args:
        identity: the run.
        checkpoint: what is evaluated; None: a network that comes from elsewhere and knows no patients.
        evaluated_items: whose figures are reported.
        validation_items: on which calibration and thresholds are chosen; empty: on the evaluated ones.
        evaluate_split: what the evaluated items are called.
        allow_trained_patients: as of :func:`cleft_bundle.checkpoints.check_not_trained_on`.
        allow_chosen_patients: as of that function.
        comparison: what is compared with, which refuses what it cannot read when it is built.

    Raises:
        BundleError: as of that function, or another run holds the folders.
    """
    if checkpoint is not None:
        check_not_trained_on(checkpoint, evaluated_items, allow_trained_patients, evaluate_split, allow_chosen_patients)
        if validation_items:
            check_not_trained_on(checkpoint, validation_items, allow_trained_patients)
    identity.lock()


def load_evaluated(network: CLEFT, checkpoint: str | None) -> None:
    """Give a network that is to be evaluated its trained weights.

    Args:
        network: what is evaluated.
        checkpoint: its trained weights; None: it has them already, as a dual encoder from elsewhere has.

    Raises:
        BundleError: where there is no checkpoint for a network that needs one, or it does not fit.
    """
    if checkpoint is not None:
        load_trained(network, checkpoint)
    elif not network.scores_untrained:
        raise BundleError("checkpoint is not set: pass the trained weights with --checkpoint")


def check_evaluated_pictures(checkpoint: str | None, dataset: Any) -> None:
    """Say in the log which of the evaluated pictures a checkpoint was made with; None as checkpoint knows none.

    Args:
        checkpoint: what is evaluated.
        dataset: the evaluated images, which are read if they are kept in memory.
    """
    if checkpoint is not None:
        check_pictures(checkpoint, known_pictures(dataset))


def begin_label_efficiency(
    identity: RunIdentity,
    sources: str | Sequence[str],
    checkpoint: str,
    splits: Mapping[str, Sequence[Item]],
    evaluated_items: Sequence[Item],
    evaluate_split: str,
    allow_trained_patients: bool = False,
    allow_chosen_patients: bool = False,
) -> None:
    """Lock the folders of a linear probe or a fine-tuning, and refuse patients that its checkpoint knows.

    Args:
        identity: the run.
        sources: where image towers come from, see :func:`cleft_bundle.checkpoints.image_tower`; only ``cleft`` knows
            patients.
        checkpoint: file of source ``cleft``.
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        evaluated_items: whose figures are reported.
        evaluate_split: what they are called.
        allow_trained_patients: as of :func:`cleft_bundle.checkpoints.check_not_trained_on`.
        allow_chosen_patients: as of that function.

    Raises:
        BundleError: as of that function, or another run holds the folders.
    """
    identity.lock(make_folders=False)
    if "cleft" in ([sources] if isinstance(sources, str) else sources):
        check_not_trained_on(checkpoint, splits["validation"], allow_trained_patients)
        check_not_trained_on(checkpoint, evaluated_items, allow_trained_patients, evaluate_split, allow_chosen_patients)


def learnable_items(items: Sequence[Item], class_names: Sequence[str], task: Task, fraction: float) -> list[Item]:
    """The items with a usable label, where every class can be learnt from them.

    Args:
        items: of the training split.
        class_names: names of the classes.
        task: ``multiclass`` or ``multilabel``.
        fraction: which share of the training patients they are.

    Raises:
        BundleError: of :func:`check_learnable`, or no item has a usable label.
    """
    usable = usable_items(items, task)
    check_learnable(usable, class_names, task, fraction)
    return usable


def begin_prompt_tuning(
    identity: RunIdentity, pretrained: str, splits: Mapping[str, Sequence[Item]], allow_trained_patients: bool = False
) -> None:
    """Lock the folders of a prompt tuning, and refuse validation patients that its network was trained on.

    Args:
        identity: the run.
        pretrained: weights that stay as they are.
        splits: what :func:`cleft_bundle.data.make_splits` returns.
        allow_trained_patients: as of :func:`cleft_bundle.checkpoints.check_not_trained_on`.

    Raises:
        BundleError: as of that function, or another run holds the folders.
    """
    identity.lock(make_folders=False)
    check_not_trained_on(pretrained, splits["validation"], allow_trained_patients)


def load_towers(network: CLEFT, pretrained: str, served: ZeroShotClassifier) -> None:
    """Give a network its trained weights, but the image tower of a classifier that is served.

    Args:
        network: the dual encoder.
        pretrained: its trained weights.
        served: the classifier.

    Raises:
        BundleError: where the weights do not fit.
    """
    load_trained(network, pretrained)
    network.image_encoder = network.image_encoder.merged()  # a classifier has no adapters
    network.image_encoder.load_state_dict(served.image_encoder.state_dict())


def prompted(network: CLEFT, prompt: PromptLearner, device: Any) -> CLEFT:
    """A network that learns a prompt, on its device; see :meth:`cleft_bundle.networks.CLEFT.learn_prompt`."""
    return network.learn_prompt(prompt).to(device)
