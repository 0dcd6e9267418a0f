"""Objectives of prompt tuning: the images, class prompts and context of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from cleft_bundle.data.captions.prompts import names_as_prompts
from cleft_bundle.data.item import Item
from cleft_bundle.data.usable_labels import usable_items
from cleft_bundle.errors import require_one_of
from cleft_bundle.vocabulary import Task

Objective = Literal["classification", "contrastive"]


def tuning_context(objective: Objective) -> str:
    """The context that is learnt where a config names none: ``per_class`` to classify, else one for all captions.

    Args:
        objective: ``classification`` or ``contrastive``.

    Raises:
        BundleError: an unknown objective.
    """
    return "per_class" if _classifies(objective) else "shared"


def tuning_prompts(
    objective: Objective, class_names: Sequence[str], prompts: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[str]]:
    """Class prompts behind the learnt context: bare names to classify, else those of the prompt file.

    Args:
        objective: ``classification`` or ``contrastive``.
        class_names: names of the classes.
        prompts: of the prompt file, by class.

    Raises:
        BundleError: an unknown objective.
    """
    return names_as_prompts(class_names) if _classifies(objective) else prompts


def tuning_items(objective: Objective, items: Sequence[Item], task: Task) -> list[Item]:
    """Training images: those with a usable label to classify, else all, as each has a caption.

    Args:
        objective: ``classification`` or ``contrastive``.
        items: of the training split.
        task: ``multiclass`` or ``multilabel``.

    Raises:
        BundleError: an unknown objective, or there is no usable label.
    """
    return usable_items(items, task) if _classifies(objective) else list(items)


def _classifies(objective: Objective) -> bool:
    require_one_of("objective", objective, get_args(Objective))
    return objective == "classification"
