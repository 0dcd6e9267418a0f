"""The dependence of metrics on the words of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics.classification import METRICS, ClassificationMetrics, average_over_common
from cleft_bundle.metrics.predictions import Predictions


@dataclass(frozen=True)
class Spread:
    """A metric over several variants.

    Args:
        mean: of the variants.
        sd: standard deviation, with n - 1.
        low: the smallest value.
        high: the largest value.
        n: number of variants for which the metric is defined.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int


def prompt_spread(
    variants: Sequence[Predictions], metrics: Sequence[str] = METRICS, thresholds: float | Sequence[float] = 0.5
) -> dict[str, Spread]:
    """Compute how metrics vary over variants of the prompts on the same images, means over the same classes.

    Args:
        variants: the predictions of each variant.
        metrics: some of :data:`cleft_bundle.metrics.METRICS`.
        thresholds: the score, one or K, from which on an image is called positive.

    Returns:
        names of metrics to their spread; metrics that are defined for fewer than two variants are absent.

    Raises:
        BundleError: where there are fewer than two variants, or their images differ.
    """
    if len(variants) < 2:
        raise BundleError(f"spread over prompts: expected two variants or more, got {len(variants)}")
    if any(set(variant.names) != set(variants[0].names) for variant in variants):
        raise BundleError("spread over prompts: the variants were not computed on the same images")
    values: dict[str, list[float]] = {}
    parts = [ClassificationMetrics(variant, metrics, thresholds) for variant in variants]
    average_over_common(parts)
    for part in parts:
        for name, value in part(np.ones((1, len(part.predictions)), dtype=np.uint8)).items():
            values.setdefault(name, []).extend(value[~np.isnan(value)].tolist())
    return {
        name: Spread(float(np.mean(found)), float(np.std(found, ddof=1)), min(found), max(found), len(found))
        for name, found in values.items()
        if len(found) > 1
    }
