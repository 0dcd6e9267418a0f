"""From logits to calibrated probabilities: a temperature, and a bias for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize  # type: ignore[import-untyped]  # scipy ships no type information
from scipy.special import expit, log_softmax, softmax  # type: ignore[import-untyped]
from scipy.stats import t  # type: ignore[import-untyped]

from cleft_bundle.data.usable_labels import exclusive, usable_rows
from cleft_bundle.errors import BundleError
from cleft_bundle.vocabulary import Task

#: Standard deviation of the logarithm of the temperature before any image was seen, and by how many images of each
#: label the targets are smoothed. scripts/simulate_calibration.py shows what they do.
PRIOR = 1.0
SMOOTHING = 0.1
_TEMPERATURES = (0.01, 100.0)
_LARGEST_BIAS = 30.0
_CONFIDENCE = 0.95
_STEP = 1e-4


@dataclass(frozen=True)
class Calibration:
    """Map from logits to calibrated probabilities: ``logits / temperature + bias``, then softmax or sigmoid.

    Args:
        temperature: above 1 makes probabilities less extreme.
        bias: added to the logit of each class, [K].
        task: ``multiclass`` (softmax) or ``multilabel`` (sigmoid).
        low: lower bound of the temperature's 95 % interval, NaN where it was not fitted.
        high: upper bound, or NaN.
        n_images: number of images that it was fitted on.
    """

    temperature: float
    bias: Sequence[float]
    task: Task
    low: float = float("nan")
    high: float = float("nan")
    n_images: int = 0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities [N, K] of logits [N, K]."""
        adjusted = np.asarray(logits, dtype=np.float64) / self.temperature + np.asarray(self.bias)
        return softmax(adjusted, axis=1) if self.task == "multiclass" else expit(adjusted)


def fit_temperature(
    logits: np.ndarray,
    labels: np.ndarray,
    task: Task,
    patients: Sequence[object] | np.ndarray | None = None,
    penalised: bool = True,
) -> Calibration:
    """Fit the temperature that makes validation labels most likely; it changes no ranking and no highest class.

    The labels of few images may have no most likely temperature: where the logits part the classes, it runs to zero,
    and probabilities become 0 and 1. The targets are therefore smoothed, as Platt did, by :data:`SMOOTHING` images of
    each label, and the logarithm of the temperature has a normal prior around 0 of standard deviation :data:`PRIOR`.
    Of some hundred images neither is seen.

    Args:
        logits: [N, K], before softmax or sigmoid.
        labels: [N, K] of 1, 0 and NaN (unknown, left out).
        task: ``multiclass`` or ``multilabel``.
        patients: [N], whose image each one is, for the interval; None: each of another patient.
        penalised: with smoothed targets and the prior; False is the maximum likelihood of Guo et al.

    Returns:
        a temperature in 0.01..100, to the precision in which a classifier keeps it (float32), and biases of 0. The
        interval holds the temperatures that are not much less likely (profile likelihood), where the images of a
        patient may depend on each other.

    Raises:
        BundleError: where no label is known, or a logit is not finite.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017; Platt, "Probabilistic outputs for support
    vector machines", 1999, for smoothed targets; Pace, Salvan and Sartori, "Adjusting composite likelihood ratio
    statistics", 2011, for the interval.

    Examples:
        >>> import numpy as np
        >>> logits = np.random.default_rng(0).normal(size=(200, 2))
        >>> labels = (np.random.default_rng(1).random((200, 2)) < 1 / (1 + np.exp(-logits / 3))).astype(float)
        >>> 2 < fit_temperature(logits, labels, "multilabel").temperature < 5  # the logits are three times too large
        True
    """
    return _fit(_Likelihood(logits, labels, task, patients, biased=False, penalised=penalised))


def fit_bias(
    logits: np.ndarray,
    labels: np.ndarray,
    task: Task,
    patients: Sequence[object] | np.ndarray | None = None,
    penalised: bool = True,
) -> Calibration:
    """Fit a temperature and a bias for each class together, see :func:`fit_temperature`.

    Within a class the ranking stays; a bias moves its probabilities to the frequency of the class in validation. A
    class without both sides there keeps a bias of 0.

    Source: Platt, 1999; Guo et al., ICML 2017 (one temperature for all classes, so that few parameters are fitted).
    """
    return _fit(_Likelihood(logits, labels, task, patients, biased=True, penalised=penalised))


class _Likelihood:
    """Minus the logarithm of the likelihood, of the logarithm of 1 / temperature and of the biases."""

    def __init__(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        task: Task,
        patients: Sequence[object] | np.ndarray | None,
        biased: bool,
        penalised: bool,
    ) -> None:
        logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
        if not np.isfinite(logits).all():
            raise BundleError(
                f"calibration: {(~np.isfinite(logits)).any(axis=1).sum()} images have logits that are not finite"
            )
        rows = usable_rows(labels, task)
        if not rows.any():
            raise BundleError("calibration: expected known labels to fit on, found none")
        owners = np.arange(len(labels)) if patients is None else np.asarray(patients, dtype=str)
        self.owner = np.unique(owners[rows], return_inverse=True)[1]
        self.task = task
        self.logits, labels = logits[rows], labels[rows]
        if task == "multiclass":
            labels = exclusive(labels)
        self.known = ~np.isnan(labels)
        self.free = biased & (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
        self.target = _smoothed(labels, task, SMOOTHING) if penalised else np.nan_to_num(labels)
        self.weight = 1 / PRIOR**2 if penalised else 0.0

    def excess(self, parameters: np.ndarray) -> np.ndarray:
        """By how much the probabilities [N, K] exceed their targets."""
        adjusted = self.logits * np.exp(parameters[0]) + parameters[1:]
        if self.task == "multiclass":
            return softmax(adjusted, axis=1) - self.target
        return (expit(adjusted) - self.target) * self.known

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        inverse = np.exp(parameters[0])
        adjusted = self.logits * inverse + parameters[1:]
        if self.task == "multiclass":
            total = -(self.target * log_softmax(adjusted, axis=1)).sum()
        else:
            total = ((np.logaddexp(0, adjusted) - self.target * adjusted) * self.known).sum()
        total += self.weight * parameters[0] ** 2 / 2
        excess = self.excess(parameters)
        slope = (excess * self.logits).sum() * inverse + self.weight * parameters[0]
        return total, np.concatenate([[slope], excess.sum(axis=0)])

    def design_effect(self, parameters: np.ndarray) -> float:
        """Factor by which the temperature varies more than of independent labels, 1 or more."""
        slopes = (self.excess(parameters) * self.logits).sum(axis=1) * np.exp(parameters[0])
        spread = (np.bincount(self.owner, slopes) ** 2).sum()
        step = np.zeros(len(parameters))
        step[0] = _STEP
        curvature = (self(parameters + step)[1][0] - self(parameters - step)[1][0]) / (2 * _STEP) - self.weight
        return max(1.0, float(spread / curvature)) if curvature > 0 else 1.0


def _smoothed(labels: np.ndarray, task: Task, share: float) -> np.ndarray:
    """Targets [N, K] between 0 and 1: to the images of each label so many of every label are added."""
    count = (labels == 1).sum(axis=0)
    if task == "multiclass":
        own = (labels * count).sum(axis=1, keepdims=True)  # images of the same class
        return (own * labels + share) / (own + share * labels.shape[1])
    others = (labels == 0).sum(axis=0)
    return np.where(labels == 1, (count + share) / (count + 2 * share), share / (others + 2 * share))


def _fit(likelihood: _Likelihood) -> Calibration:
    least, most = (float(-np.log(bound)) for bound in _TEMPERATURES[::-1])
    count = likelihood.logits.shape[1]
    biases: list[tuple[float, float]] = [(-_LARGEST_BIAS, _LARGEST_BIAS) if one else (0.0, 0.0)
                                         for one in likelihood.free]  # fmt: skip
    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    size = len(likelihood.logits)

    def scaled(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = likelihood(parameters)
        return value / size, gradient / size

    def best(start: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        limits = [(lowest, highest), *biases]
        return minimize(scaled, start, jac=True, method="L-BFGS-B", bounds=limits, options=options).x

    fitted = best(np.zeros(1 + count), least, most)
    patients = int(likelihood.owner.max()) + 1
    worst = likelihood(fitted)[0] + t.ppf((1 + _CONFIDENCE) / 2, max(patients - 1, 1)) ** 2 / 2 * (
        likelihood.design_effect(fitted)
    )

    def beyond(place: float) -> float:
        start = np.concatenate([[place], fitted[1:]])
        return likelihood(best(start, place, place) if likelihood.free.any() else start)[0] - worst

    high, low = (float(np.exp(-_end(beyond, fitted[0], bound))) for bound in (least, most))
    bias = fitted[1:]
    if likelihood.task == "multiclass" and likelihood.free.all():
        bias = bias - bias.mean()  # a softmax does not see what is added to all
    temperature = float(np.float32(np.exp(-fitted[0])))
    kept = [float(value) for value in bias.astype(np.float32)]
    return Calibration(temperature, kept, likelihood.task, low, high, size)


def _end(beyond: Callable[[float], float], inside: float, bound: float) -> float:
    """Where an interval ends between a place inside and a bound."""
    if beyond(bound) <= 0:
        return bound
    return float(brentq(beyond, inside, bound, xtol=1e-3))
