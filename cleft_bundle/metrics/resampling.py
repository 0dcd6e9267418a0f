"""Intervals and tests by resampling patients: the images of one patient stay together, for they are not independent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from tqdm import tqdm

from cleft_bundle.metrics.classification import METRICS, ClassificationMetrics, average_over_common
from cleft_bundle.metrics.intervals import Basis, Interval, from_draws, p_value
from cleft_bundle.metrics.predictions import Predictions, align

CELLS = 2**21  # weights at a time; they are summed up as numbers of 8 bytes


@dataclass(frozen=True)
class Difference(Interval):
    """The first figure minus the second, on the same images.

    Args:
        first: the first figure.
        second: the second figure.
        p_value: two-sided, of no difference, see :func:`cleft_bundle.metrics.intervals.p_value`; NaN without an
            interval.
        p_is_bound: whether the p-value is only known to lie below that, as no resample shows the contrary;
            :func:`cleft_bundle.metrics.p_text` prints it so.
    """

    first: float
    second: float
    p_value: float
    p_is_bound: bool


class Statistic(Protocol):
    """Figures as a function of how often each image counts."""

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Names to [R] values under weights uint8 [R, N]."""

    def basis(self) -> dict[str, Basis]:
        """The same names to what they rest on."""


@dataclass(frozen=True)
class Resampled:
    """The figures of a statistic, of all images and of every resample.

    Args:
        values: names to values; a figure that is not defined is absent.
        draws: the same names to [R] values, NaN where a resample leaves a figure undefined.
        basis: the same names to what they rest on.
    """

    values: dict[str, float]
    draws: dict[str, np.ndarray]
    basis: dict[str, Basis]

    def interval(self, name: str, confidence: float) -> Interval:
        """Return the interval of a figure; value and bounds are NaN where it is not defined."""
        if name not in self.values:
            return from_draws(float("nan"), np.array([]), self.basis[name], confidence)
        return from_draws(self.values[name], self.draws[name], self.basis[name], confidence)


def resample(
    statistic: Statistic, patients: np.ndarray, resamples: int = 1000, seed: int = 0, description: str = "bootstrap"
) -> Resampled:
    """Draw patients with replacement, as many as there are, and compute a statistic of their images each time.

    The draws depend on the seed and the number of patients only, so that two statistics of the same patients meet the
    same resamples.

    Args:
        statistic: what is computed, of N images.
        patients: int [N], numbers from 0.
        resamples: number of resamples R.
        seed: of the draws.
        description: stands before the progress bar, which only a terminal gets to see.

    Source: Field and Welsh, "Bootstrapping clustered data", 2007.
    """
    count = int(patients.max()) + 1
    rng = np.random.default_rng(seed)
    whole = statistic(np.ones((1, len(patients)), dtype=np.uint8))
    values = {name: float(value[0]) for name, value in whole.items() if not np.isnan(value[0])}
    chunk = max(1, CELLS // len(patients))
    parts: list[dict[str, np.ndarray]] = []
    with tqdm(total=resamples, desc=description, leave=False, disable=not sys.stderr.isatty()) as progress:
        for start in range(0, resamples, chunk):
            rows = min(chunk, resamples - start)
            drawn = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(rows)]
            parts.append(statistic(np.array(drawn, dtype=np.uint8)[:, patients]))
            progress.update(rows)
    draws = {name: np.concatenate([part[name] for part in parts]) for name in values}
    return Resampled(values, draws, statistic.basis())


def bootstrap(
    predictions: Predictions,
    metrics: Sequence[str] = METRICS,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    thresholds: float | Sequence[float] = 0.5,
) -> dict[str, Interval]:
    """Compute metrics with intervals by resampling patients.

    Args:
        predictions: of N images.
        metrics: some of :data:`cleft_bundle.metrics.METRICS`.
        resamples: number of resamples.
        seed: of the draws.
        confidence: of the intervals.
        thresholds: the score, one or K, from which on an image is called positive.

    Returns:
        what :func:`cleft_bundle.metrics.classification_metrics` gives, with intervals.

    Raises:
        BundleError: as :class:`cleft_bundle.metrics.ClassificationMetrics` does.

    Examples:
        >>> import numpy as np
        >>> from cleft_bundle.metrics import Predictions
        >>> draw = np.random.default_rng(0)
        >>> labels = np.repeat([[1, 0], [0, 1]], 30, axis=0)
        >>> names = [str(number) for number in range(60)]
        >>> scores = labels + draw.normal(size=(60, 2))
        >>> predictions = Predictions(scores, labels, ["edema", "mass"], "multilabel", names, names)
        >>> found = bootstrap(predictions, ["auroc"], resamples=200)["auroc/edema"]
        >>> found.low < found.value < found.high
        True
    """
    statistic = ClassificationMetrics(predictions, metrics, thresholds)
    resampled = resample(statistic, predictions.patient_numbers(), resamples, seed)
    return {name: resampled.interval(name, confidence) for name in resampled.values}


class Both:
    """Two statistics of the same images as one, their names marked by ``first`` and ``second``."""

    def __init__(self, first: Statistic, second: Statistic) -> None:
        self.parts = {"first": first, "second": second}

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Names to [R] values under weights uint8 [R, N]."""
        return {f"{mark}/{name}": value for mark, part in self.parts.items() for name, value in part(weights).items()}

    def basis(self) -> dict[str, Basis]:
        """The same names to what they rest on."""
        return {f"{mark}/{name}": basis for mark, part in self.parts.items() for name, basis in part.basis().items()}


def paired_bootstrap(
    first: Predictions,
    second: Predictions,
    metrics: Sequence[str] = METRICS,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    thresholds: float | Sequence[float] = 0.5,
) -> dict[str, Difference]:
    """Compare two checkpoints, or two sets of prompts, on the same images: both meet the same resamples of patients.

    The p-value is the level at which the interval begins to leave out zero. Means go over the classes for which a
    metric is defined in both; each result names them.

    Args:
        first: one set of predictions.
        second: the other, of the same images in any order.
        metrics: some of :data:`cleft_bundle.metrics.METRICS`.
        resamples: number of resamples.
        seed: of the draws.
        confidence: of the intervals.
        thresholds: the score, one or K, from which on an image is called positive.

    Returns:
        names to differences, first minus second; metrics that are not defined for both are absent.

    Raises:
        BundleError: where images, patients, labels, classes or task differ.

    Source: Davison and Hinkley, "Bootstrap methods and their application", 1997, chapter 4.
    """
    second = align(first, second)
    parts = [ClassificationMetrics(part, metrics, thresholds) for part in (first, second)]
    average_over_common(parts)
    both = Both(*parts)
    resampled = resample(both, first.patient_numbers(), resamples, seed)
    names = [name.removeprefix("first/") for name in resampled.values if name.startswith("first/")]
    return {
        name: difference(resampled, f"first/{name}", f"second/{name}", confidence)
        for name in names
        if f"second/{name}" in resampled.values
    }


def difference(resampled: Resampled, first: str, second: str, confidence: float) -> Difference:
    """Return the difference of two figures that met the same resamples, see :func:`paired_bootstrap`."""
    draws = resampled.draws[first] - resampled.draws[second]
    values = [resampled.values[name] for name in (first, second)]
    parts = [resampled.basis[name] for name in (first, second)]
    images, patients = min(part.n_images for part in parts), min(part.n_patients for part in parts)
    support = min(part.support for part in parts)
    basis = Basis(images, patients, support, largest=None, classes=parts[0].classes)
    interval = from_draws(values[0] - values[1], draws, basis, confidence)
    level, is_bound = p_value(draws, basis)
    return Difference(**asdict(interval), first=values[0], second=values[1], p_value=level, p_is_bound=is_bound)
