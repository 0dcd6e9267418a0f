"""Figures with their intervals, and the p-values that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm, t  # type: ignore[import-untyped]  # scipy ships no type information

MIN_SUPPORT = 10
_MIN_DRAWS = 0.5  # share of the draws in which a figure must be defined


@dataclass(frozen=True)
class Basis:
    """Images and patients that a figure rests on.

    Args:
        n_images: number of images that count for it.
        n_patients: number of their patients.
        support: number of patients that its uncertainty comes from, those of the rarer side; for a mean over classes
            the harmonic mean of theirs, as variances add up.
        largest: the figure lies between 0 and this; None: it has no bound.
        classes: for a mean over classes the names of these.
    """

    n_images: int
    n_patients: int
    support: float
    largest: float | None = 1.0
    classes: tuple[str, ...] = ()

    def interval(self, value: float, low: float = float("nan"), high: float = float("nan")) -> Interval:
        """Return the figure with the counts that stand here."""
        return Interval(value, low, high, self.n_images, self.n_patients, classes=self.classes)


@dataclass(frozen=True)
class Interval:
    """A figure with its interval.

    Args:
        value: of the images as they are.
        low: lower bound, NaN where fewer than :data:`MIN_SUPPORT` patients stand behind the figure.
        high: upper bound, or NaN.
        n_images: number of images that count for the figure.
        n_patients: number of their patients.
        classes: for a mean over classes the names of those that it goes over, else empty.
    """

    value: float
    low: float
    high: float
    n_images: int
    n_patients: int
    classes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def is_known(self) -> bool:
        """True where there is an interval."""
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
        return basis.interval(value)
    share, spread = value / basis.largest, variance / basis.largest**2
    number = share * (1 - share) / spread if spread > 0 and 0 < share < 1 else basis.support
    square = t.ppf((1 + confidence) / 2, basis.support - 1) ** 2
    middle = (share + square / number / 2) / (1 + square / number)
    half = np.sqrt(square * share * (1 - share) / number + (square / number / 2) ** 2) / (1 + square / number)
    low, high = np.array([middle - half, middle + half]) * basis.largest
    # rounding must not leave out a figure at its bound
    return basis.interval(value, min(float(low), value), max(float(high), value))


def from_draws(value: float, draws: np.ndarray, basis: Basis, confidence: float) -> Interval:
    """Return the interval of a figure from its values in resamples.

    A bounded figure gets :func:`from_variance` with the variance of its resamples, which comes nearer to the nominal
    coverage than their percentiles do (docs/statistics.md). Any other gets the percentiles of its resamples, moved
    outward by what Student's t has over the normal distribution, for they are too narrow for few patients.

    Args:
        value: the figure.
        draws: float [R]; NaN, of resamples that leave the figure undefined, are left out. Where they are more than
            half of all, there is no interval.
        basis: what it rests on.
        confidence: such as 0.95.

    Source: Hesterberg, "What teachers should know about the bootstrap", 2015 (narrowness, expanded percentiles).
    """
    known = draws[~np.isnan(draws)]
    if not _suffice(draws, known, basis):
        return basis.interval(value)
    if basis.largest is not None:
        # resamples vary by the variance divided by n, not by n - 1
        return from_variance(value, float(known.var()) * _correction(basis), basis, confidence)
    outside = norm.cdf(np.sqrt(_correction(basis)) * t.ppf((1 - confidence) / 2, basis.support - 1))
    low, high = np.quantile(known, [outside, 1 - outside])
    return basis.interval(value, float(low), float(high))


def p_value(draws: np.ndarray, basis: Basis) -> tuple[float, bool]:
    """Return the two-sided p-value of a figure that is zero where nothing differs, from its resamples.

    It is the level at which the interval of :func:`from_draws` begins to leave out zero, so that it never disagrees
    with that interval. Resamples cannot tell levels below what one of them stands for: there the p-value is a bound.

    Args:
        draws: float [R] of a figure without bounds; NaN are left out.
        basis: what it rests on.

    Returns:
        the p-value, and whether it is only known to lie below that; NaN where there is no interval.
    """
    known = np.sort(draws[~np.isnan(draws)])
    if not _suffice(draws, known, basis):
        return float("nan"), False
    share = min(_share_below(known), _share_below(-known[::-1]))
    least = 1 / (len(known) + 1)
    level = float(2 * t.cdf(norm.ppf(max(share, least)) / np.sqrt(_correction(basis)), basis.support - 1))
    return min(level, 1.0), share < least


def p_text(value: float, is_bound: bool = False) -> str:
    """Return a p-value as a paper prints it: three digits, ``< 0.001`` for less, and a bound as such.

    Args:
        value: the p-value; NaN gives a dash.
        is_bound: whether it is only known to lie below that; the bound is rounded up.

    Examples:
        >>> p_text(0.0342), p_text(0.00001), p_text(float("nan"))
        ('0.034', '< 0.001', '-')
    """
    if np.isnan(value):
        return "-"
    if value < 0.001:
        return "< 0.001"
    if is_bound:
        return f"< {min(np.ceil(value * 1000 - 1e-9) / 1000, 1.0):.3f}"
    return f"{value:.3f}"


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct the p-values of several tests, so that any of them falls below 0.05 by chance in one of 20 studies.

    Args:
        p_values: names to p-values; NaN, of tests that were not made, do not count and stay NaN. A bound stays one.

    Returns:
        the same names to corrected p-values, at most 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Examples:
        >>> holm({"auroc": 0.01, "sensitivity": 0.04, "specificity": 0.03})
        {'auroc': 0.03, 'sensitivity': 0.06, 'specificity': 0.06}
    """
    tested = sorted((name for name, value in p_values.items() if not np.isnan(value)), key=lambda name: p_values[name])
    raised = np.array([(len(tested) - number) * p_values[name] for number, name in enumerate(tested)], dtype=float)
    corrected = dict(zip(tested, np.minimum(np.maximum.accumulate(raised), 1.0).tolist(), strict=True))
    return {name: corrected.get(name, float("nan")) for name in p_values}


def _suffice(draws: np.ndarray, known: np.ndarray, basis: Basis) -> bool:
    return basis.support >= MIN_SUPPORT and len(known) >= max(2, _MIN_DRAWS * len(draws))


def _correction(basis: Basis) -> float:
    return basis.support / (basis.support - 1)


def _share_below(ordered: np.ndarray) -> float:
    """The largest share whose quantile, by NumPy's rule, is not above zero, of rising numbers; 0 where none is."""
    count = int(np.searchsorted(ordered, 0.0, side="right"))
    if count in (0, len(ordered)):
        return count / len(ordered)
    before, after = ordered[count - 1], ordered[count]
    return float((count - 1 - before / (after - before)) / (len(ordered) - 1))
