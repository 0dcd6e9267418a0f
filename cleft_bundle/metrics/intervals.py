"""Figures with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t  # type: ignore[import-untyped]  # scipy ships no type information

MIN_SUPPORT = 10


@dataclass(frozen=True)
class Basis:
    """What a figure rests on.

    Args:
        n_images: number of images that count for it.
        n_patients: number of their patients.
        support: number of patients that its uncertainty comes from, those of the rarer side; for a mean over classes
            the harmonic mean of theirs, as variances add up.
        largest: the figure lies between 0 and this; None: it has no bound.
    """

    n_images: int
    n_patients: int
    support: float
    largest: float | None = 1.0


@dataclass(frozen=True)
class Interval:
    """A figure with its interval.

    Args:
        value: of the images as they are.
        low: lower bound, NaN where fewer than :data:`MIN_SUPPORT` patients stand behind the figure.
        high: upper bound, or NaN.
        n_images: number of images that count for the figure.
        n_patients: number of their patients.
    """

    value: float
    low: float
    high: float
    n_images: int
    n_patients: int

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return not np.isnan(self.low)


def from_variance(value: float, variance: float, basis: Basis, confidence: float) -> Interval:
    """Return the interval of a bounded figure, Wilson's for a proportion of the same variance.

    The variance stands for an effective number of independent observations, which takes account of patients with
    several images; Student's t replaces the normal distribution. Bounds stay within the figure's range, and where the
    variance is zero, as for a sensitivity of 1, the effective number is that of the patients.

    Args:
        value: the figure, between 0 and ``basis.largest``.
        variance: its variance.
        basis: what it rests on.
        confidence: such as 0.95.

    Source: Wilson, 1927; Kottas, Kuss and Zapf, "A modified Wald interval for the area under the ROC curve", 2014, for
    the like with AUROC; Korn and Graubard, 1998, for effective numbers with t.
    """
    if basis.support < MIN_SUPPORT or basis.largest is None:
        return Interval(value, float("nan"), float("nan"), basis.n_images, basis.n_patients)
    share, spread = value / basis.largest, variance / basis.largest**2
    number = share * (1 - share) / spread if spread > 0 and 0 < share < 1 else basis.support
    square = t.ppf((1 + confidence) / 2, basis.support - 1) ** 2
    middle = (share + square / number / 2) / (1 + square / number)
    half = np.sqrt(square * share * (1 - share) / number + (square / number / 2) ** 2) / (1 + square / number)
    low, high = np.array([middle - half, middle + half]) * basis.largest
    # rounding must not leave out a figure at its bound
    return Interval(value, min(float(low), value), max(float(high), value), basis.n_images, basis.n_patients)


def from_draws(value: float, draws: np.ndarray, basis: Basis, confidence: float) -> Interval:
    """Return the interval of a figure from its values in resamples.

    A bounded figure gets :func:`from_variance` with the variance of its resamples, which comes nearer to the nominal
    coverage than their percentiles do (docs/statistics.md). Any other gets the percentiles of its resamples, moved
    outward by what Student's t has over the normal distribution, for they are too narrow for few patients.

    Args:
        value: the figure.
        draws: float [R]; NaN, of resamples that leave the figure undefined, are left out.
        basis: what it rests on.
        confidence: such as 0.95.

    Source: Hesterberg, "What teachers should know about the bootstrap", 2015 (narrowness, expanded percentiles).
    """
    known = draws[~np.isnan(draws)]
    if basis.support < MIN_SUPPORT or len(known) < 2:
        return Interval(value, float("nan"), float("nan"), basis.n_images, basis.n_patients)
    correction = basis.support / (basis.support - 1)  # resamples vary by the variance divided by n, not by n - 1
    if basis.largest is not None:
        return from_variance(value, float(known.var()) * correction, basis, confidence)
    outside = norm.cdf(np.sqrt(correction) * t.ppf((1 - confidence) / 2, basis.support - 1))
    low, high = np.quantile(known, [outside, 1 - outside])
    return Interval(value, float(low), float(high), basis.n_images, basis.n_patients)
