"""Coverage of intervals: how often they hold the true figure, in populations whose figures are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad  # type: ignore[import-untyped]  # scipy ships no type information
from scipy.special import expit, logit  # type: ignore[import-untyped]
from scipy.stats import norm  # type: ignore[import-untyped]

from cleft_bundle.metrics.auroc_variance import delong_interval, delong_test
from cleft_bundle.metrics.classification import RANKED, THRESHOLDED
from cleft_bundle.metrics.intervals import Interval
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.resampling import Difference, bootstrap, paired_bootstrap

METRICS = (*RANKED, *THRESHOLDED, "brier")
LOSS = 0.05  # of AUROC, by which the second score falls short of the first
SHARED = 0.6  # correlation of what both scores do not know
_CLASS = "finding"


@dataclass(frozen=True)
class Population:
    """Patients whose images have normally distributed scores, with and without a finding.

    Args:
        patients: number of patients drawn.
        images: most images of a patient; each has 1 to that many, equally often.
        prevalence: share of images with the finding; those of a patient resemble each other where there are several.
        auroc: of images of different patients.
        correlation: share of the variance of scores, given the finding, that the images of a patient have in common.
    """

    patients: int
    images: int
    prevalence: float
    auroc: float
    correlation: float = 0.0

    def draw(self, rng: np.random.Generator) -> tuple[Predictions, Predictions]:
        """Draw patients and their images, with the probabilities of two classifiers, both calibrated."""
        owner = np.repeat(np.arange(self.patients), rng.integers(1, self.images + 1, self.patients))
        inclined = rng.beta(2 * self.prevalence, 2 * (1 - self.prevalence), self.patients)
        chance = inclined[owner] if self.images > 1 else np.full(len(owner), self.prevalence)
        label = (rng.random(len(owner)) < chance).astype(float)
        common, own = rng.normal(size=(3, self.patients)), rng.normal(size=(3, len(owner)))
        noise = np.sqrt(self.correlation) * common[:, owner] + np.sqrt(1 - self.correlation) * own
        names = np.arange(len(owner)).astype(str)
        both = []
        for number, auroc in enumerate((self.auroc, self.auroc - LOSS)):
            distance = _distance(auroc)
            score = distance * label + np.sqrt(SHARED) * noise[2] + np.sqrt(1 - SHARED) * noise[number]
            probability = expit(distance * (score - distance / 2) + logit(self.prevalence))
            both.append(
                Predictions(
                    probability[:, None], label[:, None], [_CLASS], "multilabel", names, owner.astype(str), groups={}
                )
            )
        return both[0], both[1]

    def truth(self) -> dict[str, float]:
        """Compute the figures of :data:`METRICS` in the whole population, at a threshold equal to the prevalence."""
        distance, share = _distance(self.auroc), self.prevalence
        hit = float(norm.cdf(distance / 2))  # sensitivity and specificity alike
        called = share * hit + (1 - share) * (1 - hit)

        def precision(sensitivity: float) -> float:
            wrong = norm.sf(distance + norm.isf(sensitivity))
            return share * sensitivity / (share * sensitivity + (1 - share) * wrong)

        def squared(score: float) -> float:
            probability = expit(distance * (score - distance / 2) + logit(share))
            with_finding, without = share * norm.pdf(score - distance), (1 - share) * norm.pdf(score)
            return with_finding * (1 - probability) ** 2 + without * probability**2

        return {
            "auroc": self.auroc,
            "average_precision": quad(precision, 0, 1)[0],
            "f1": 2 * share * hit / (share + called),
            "precision": share * hit / called,
            "sensitivity": hit,
            "specificity": hit,
            "accuracy": hit,
            "balanced_accuracy": hit,
            "brier": quad(squared, -8, 8 + distance)[0],
        }


@dataclass(frozen=True)
class Coverage:
    """Share of the intervals that held the true figure.

    Args:
        share: of the simulations whose interval could be computed.
        simulations: number of these.
    """

    share: float
    simulations: int


def coverage(population: Population, simulations: int, resamples: int, seed: int) -> dict[str, Coverage]:
    """Draw from a population again and again, and count how often 95 % intervals hold its true figures.

    Args:
        population: where images come from.
        simulations: number of draws.
        resamples: number of resamples of the bootstrap, in each draw.
        seed: of the draws.

    Returns:
        ``bootstrap <metric>`` for all of :data:`METRICS`; ``DeLong`` by patients (Obuchowski); ``DeLong, images`` and
        ``bootstrap auroc, images``, as if every image were of another patient; ``bootstrap difference of auroc`` and
        ``DeLong difference``, of two classifiers.
    """
    truth = population.truth()
    rng = np.random.default_rng(seed)
    held: dict[str, list[bool]] = {}
    for number in range(simulations):
        first, second = population.draw(rng)
        if min(first.labels.sum(), (1 - first.labels).sum()) < 2:
            continue
        found = _intervals(first, second, population.prevalence, truth, resamples, number)
        for name, (low, high, true) in found.items():
            if not np.isnan(low):
                held.setdefault(name, []).append(low <= true <= high)
    return {name: Coverage(float(np.mean(hits)), len(hits)) for name, hits in held.items()}


def as_table(populations: Sequence[Population], results: Sequence[dict[str, Coverage]]) -> str:
    """Write coverages in per cent as a Markdown table, a row each figure and a column each population."""
    heads = [
        f"{p.patients} x {'1' if p.images == 1 else f'1-{p.images}'}, {p.prevalence:g}, {p.auroc:g}, {p.correlation:g}"
        for p in populations
    ]
    lines = [f"| interval | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for name in results[0]:
        cells = [f"{100 * result[name].share:.1f}" if name in result else "" for result in results]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _intervals(
    first: Predictions, second: Predictions, threshold: float, truth: dict[str, float], resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Bounds and the true figure of every interval of one draw."""
    scores, labels, patients = first.scores[:, 0], first.labels[:, 0], np.asarray(first.patients)
    intervals: dict[str, Interval] = bootstrap(first, METRICS, resamples, seed, thresholds=threshold)
    found = {f"bootstrap {name}": (intervals[f"{name}/{_CLASS}"], true) for name, true in truth.items()}
    alone = Predictions(first.scores, first.labels, first.class_names, first.task, first.names, first.names, groups={})
    found["bootstrap auroc, images"] = (bootstrap(alone, ["auroc"], resamples, seed)[f"auroc/{_CLASS}"], truth["auroc"])
    found["DeLong"] = (delong_interval(scores, labels, patients), truth["auroc"])
    found["DeLong, images"] = (delong_interval(scores, labels), truth["auroc"])
    bounds = {name: (interval.low, interval.high, true) for name, (interval, true) in found.items()}
    paired: Difference = paired_bootstrap(first, second, ["auroc"], resamples, seed)[f"auroc/{_CLASS}"]
    bounds["bootstrap difference of auroc"] = (paired.low, paired.high, LOSS)
    test = delong_test(scores, second.scores[:, 0], labels, patients)
    known = paired.is_known
    bounds["DeLong difference"] = (test.low if known else np.nan, test.high if known else np.nan, LOSS)
    return bounds


def _distance(auroc: float) -> float:
    """How far the means of two normal distributions of variance 1 lie apart that give an AUROC."""
    return float(np.sqrt(2) * norm.ppf(auroc))
