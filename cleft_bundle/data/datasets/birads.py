"""Shared by the breast sets: density and BI-RADS categories, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.errors import require_one_of

#: Words of the density codes; 5 is given to male breasts.
DENSITY_WORDS = {
    1: "almost entirely fat",
    2: "scattered fibroglandular densities",
    3: "heterogeneously dense",
    4: "extremely dense",
    5: "normal male",
}
#: Words of the BI-RADS categories from the least to the most severe. That is the order of suspicion, in which an
#: incomplete assessment (0) stands above probably benign and below suspicious.
BIRADS_WORDS = {
    1: "negative",
    2: "benign",
    3: "probably benign",
    0: "additional imaging",
    4: "suspicious",
    5: "highly suggestive of malignancy",
    6: "known biopsy-proven malignancy",
}
#: From each category to its place in that order.
SEVERITY = {category: place for place, category in enumerate(BIRADS_WORDS)}
#: The parts of a finding that captions may name, those of a mass and those of calcifications.
MASS = ("mass_shape", "mass_margin", "mass_density")
CALCIFICATION = ("calcification_type", "calcification_distribution")
#: Parts of the words for a mass's shape. Tables code asymmetries, distortions and nodes as shapes, too, of which no
#: sentence can say that a mass has them: they stay among the findings.
SHAPES = ("round", "oval", "lobul", "irregular")


def check_target(
    target: str, targets: Mapping[str, Mapping[Any, str]], prompts: PromptSet, slots: Sequence[str]
) -> None:
    """Refuse a target that a set does not have, and prompts that do not fit it.

    Args:
        target: what shall be classed.
        targets: from each target of the set to the words of its values.
        prompts: their classes must be among these words, their slots among ``slots``.
        slots: what the set offers to captions.

    Raises:
        BundleError: names the target, the class or the slot.
    """
    require_one_of("target", target, targets)
    prompts.check_classes(list(targets[target].values()), "value", target)
    prompts.check_slots(slots)


def words_of(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details of a mammogram that a caption may mention.

    Args:
        details: as in :func:`cleft_bundle.data.datasets.items.words_of`, with ``density`` (1-5) and
            ``birads`` (0-6) where known.

    Returns:
        The same with ``density_words`` and ``birads_words``, the view in lower case, and ``mass_shape`` where it is one
        of :data:`SHAPES`.
    """
    shape = str(details.get("mass_shape") or "")
    spoken = {"mass_shape": shape if any(part in shape.lower() for part in SHAPES) else None}
    return parts.known(
        **parts.words_of(details) | {"view": details.get("view", "").lower()} | spoken,
        density_words=DENSITY_WORDS.get(details.get("density", -1)),
        birads_words=BIRADS_WORDS.get(details.get("birads", -1)),
    )


def one_hot(word: str, prompts: PromptSet) -> dict[str, float]:
    """1.0 for the class of that name and 0.0 for the others."""
    return {name: float(name == word) for name in prompts.classes}


def described(details: Mapping[Any, Any]) -> list[str]:
    """Names for the parts of a finding, such as ``mass shape: irregular``, from the slots that hold them."""
    return [f"{slot.replace('_', ' ')}: {details[slot]}" for slot in (*MASS, *CALCIFICATION) if details.get(slot)]


def most_severe(categories: pd.Series) -> pd.Series:
    """From each group of findings to its most severe category.

    Args:
        categories: BI-RADS 0-6 or NaN a finding, indexed by group.

    Returns:
        One category a group, NaN where no finding has one.
    """
    worst = categories.map(SEVERITY).groupby(level=list(range(categories.index.nlevels))).max()
    return worst.map(dict(enumerate(SEVERITY)))
