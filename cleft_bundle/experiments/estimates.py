"""Estimates from the kept scores of an experiment: means over seeds, intervals by patient, differences and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.experiments.parameters import Parameters, count_trained
from cleft_bundle.experiments.plan import Line, Plan
from cleft_bundle.metrics.classification import ClassificationMetrics, average_over_common
from cleft_bundle.metrics.intervals import Basis, Interval, holm
from cleft_bundle.metrics.predictions import Predictions, align
from cleft_bundle.metrics.resampling import Both, Difference, difference, resample
from cleft_bundle.metrics.score_files import SCORES, KeptScores, read_kept_scores


@dataclass(frozen=True)
class Estimate:
    """A metric of one line.

    Args:
        seeds: from each seed to its value.
        interval: of the mean over seeds, by resampling patients.
        difference: the mean minus that of the reference, over the seeds that both have; None for the reference itself.
        differences: from each of these seeds to its own difference.
        holm: the p-value of the difference, corrected for all those of the table; NaN where there is none.
    """

    seeds: Mapping[int, float]
    interval: Interval
    difference: Difference | None = None
    differences: Mapping[int, float] = field(default_factory=dict)
    holm: float = math.nan

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(list(self.seeds.values())))

    @property
    def sd(self) -> float:
        """Over the seeds, with n - 1; NaN for a single one."""
        return _sd(self.seeds)

    @property
    def difference_sd(self) -> float:
        """Of the difference over the seeds, with n - 1; NaN for a single one."""
        return _sd(self.differences)


def _sd(values: Mapping[int, float]) -> float:
    return float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Outcome:
    """One line of the table.

    Args:
        line: which.
        estimates: metrics to estimates; those that are not defined are absent.
        seeds: the seeds that have ended.
        images: number of images of a seed, the most.
        patients: number of patients of all seeds.
        positives: names of classes to the number of their images, of the first seed.
        parameters: what was trained for it.
        cpu_seconds: processor time of all its runs, of user and system, the mean over seeds.
        peak_memory: bytes, the most of any of its processes.
    """

    line: Line
    estimates: Mapping[str, Estimate]
    seeds: Sequence[int]
    images: int
    patients: int
    positives: Mapping[str, int]
    parameters: Parameters
    cpu_seconds: float
    peak_memory: int


class OverSeeds:
    """The mean of metrics over seeds as a function of weights of the patients.

    Args:
        parts: the predictions of each seed.
        metrics: names of :data:`cleft_bundle.metrics.METRICS`, of a class (``auroc/edema``) or a mean
            (``auroc_macro``).
        patients: all patients in the order of the weights.
    """

    def __init__(self, parts: Sequence[ClassificationMetrics], metrics: Sequence[str], patients: np.ndarray) -> None:
        self.parts = parts
        self.metrics = metrics
        self.places = [np.searchsorted(patients, np.asarray(part.predictions.patients, dtype=str)) for part in parts]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Names to [R] means under weights uint8 [R, patients]."""
        values = [part(weights[:, place]) for part, place in zip(self.parts, self.places, strict=True)]
        return {name: np.mean([value[name] for value in values], axis=0) for name in self.metrics}

    def basis(self) -> dict[str, Basis]:
        """The same names to what the seed with the fewest patients behind it rests on."""
        found = [part.basis() for part in self.parts]
        return {name: min((basis[name] for basis in found), key=lambda one: one.support) for name in self.metrics}


def outcomes(plan: Plan) -> list[Outcome]:
    """Compute all lines of which any seed has ended, with differences to their references.

    Raises:
        BundleError: where lines that are compared were measured on different images, or no line has ended; names them.
    """
    kept = {line.label: _scores_of(plan, line) for line in plan.lines}
    if not any(kept.values()):
        raise BundleError("no run of the experiment has ended: there is nothing to put into a table")
    kept = _on_same_images(kept)
    _check_metrics(plan.experiment.metrics, next(part for parts in kept.values() for part in parts.values()))
    return _corrected([_outcome(plan, line, kept) for line in plan.lines if kept[line.label]])


def _outcome(plan: Plan, line: Line, kept: Mapping[str, dict[int, Predictions]]) -> Outcome:
    parts = kept[line.label]
    chains = [[plan.jobs[one] for one in line.chains[seed]] for seed in parts]
    costs = [[job.cost() or {} for job in chain] for chain in chains]
    return Outcome(
        line=line,
        estimates=_estimates(plan, parts, None if line.reference == line.label else kept.get(line.reference)),
        seeds=list(parts),
        images=max(map(len, parts.values())),
        patients=len(_patients(list(parts.values()))),
        positives=_positives(next(iter(parts.values()))),
        parameters=count_trained([job.folder for job in chains[0]], _file_of(plan, line, next(iter(parts)))),
        cpu_seconds=float(np.mean([sum(cost["cpu_seconds"] for cost in of_seed) for of_seed in costs])),
        peak_memory=max(cost["peak_memory_bytes"] for of_seed in costs for cost in of_seed),
    )


def _scores_of(plan: Plan, line: Line) -> dict[int, Predictions]:
    """From each seed that has ended to its scores."""
    ended = [seed for seed, chain in line.chains.items() if all(plan.jobs[one].cost() for one in chain)]
    return {seed: _file_of(plan, line, seed).predictions for seed in ended}


def _file_of(plan: Plan, line: Line, seed: int) -> KeptScores:
    """The scores that are meant, of those that a run has left."""
    folder = plan.jobs[line.chains[seed][-1]].folder / "eval"
    files = [
        read_kept_scores(path) for path in (folder / SCORES, *sorted(folder.glob("scores/*.npz"))) if path.is_file()
    ]
    wanted = {key: value for key, value in line.point.model_dump().items() if value is not None}
    meant = [one for one in files if all(one.about.get(key) == value for key, value in wanted.items())]
    if len(meant) != 1:
        there = "; ".join(f"source {one.about.get('source')}, fraction {one.about.get('fraction')}" for one in files)
        told = f"{len(files)} ({there})" if len(files) > 1 else str(len(files))
        raise BundleError(
            f"row {line.label!r}: its point means {len(meant)} of the scores in {folder}, expected 1 of {told}"
        )
    return meant[0]


def _on_same_images(kept: Mapping[str, dict[int, Predictions]]) -> dict[str, dict[int, Predictions]]:
    """The predictions of each seed in one order of the images; refuse those of others."""
    first: dict[int, tuple[str, Predictions]] = {}
    ordered: dict[str, dict[int, Predictions]] = {}
    for label, parts in kept.items():
        for seed, part in parts.items():
            other, reference = first.setdefault(seed, (label, part))
            try:
                ordered.setdefault(label, {})[seed] = align(reference, part)
            except BundleError as error:
                raise BundleError(f"rows {other!r} and {label!r}, seed {seed}: {error}") from None
        ordered.setdefault(label, {})
    return ordered


def _check_metrics(metrics: Sequence[str], predictions: Predictions) -> None:
    bases = [metric.partition("/")[0].removesuffix("_macro") for metric in metrics]
    known = ClassificationMetrics(predictions, bases).basis()
    for metric in metrics:
        if metric not in known:
            raise BundleError(f"metrics: there is no {metric!r} of these classes{nearest(metric, known)}")


def _estimates(
    plan: Plan, parts: Mapping[int, Predictions], reference: Mapping[int, Predictions] | None
) -> dict[str, Estimate]:
    """Metrics to estimates; those that are not defined are absent."""
    experiment = plan.experiment
    own = _measured(list(parts.values()), experiment.metrics)
    once = _of_all_images(own)
    patients = _patients(list(parts.values()))
    resampled = resample(OverSeeds(own, experiment.metrics, patients), np.arange(len(patients)), experiment.resamples)
    shared = [seed for seed in parts if seed in (reference or {})]
    differences: dict[str, tuple[Difference, list[float]]] = {}
    if reference is not None and shared:
        differences = _differences(plan, [parts[seed] for seed in shared], [reference[seed] for seed in shared])
    return {
        name: Estimate(
            {seed: float(values[name]) for seed, values in zip(parts, once, strict=True)},
            resampled.interval(name, experiment.confidence),
            *_of_seeds(shared, differences.get(name)),
        )
        for name in experiment.metrics
        if name in resampled.values
    }


def _differences(
    plan: Plan, own: Sequence[Predictions], other: Sequence[Predictions]
) -> dict[str, tuple[Difference, list[float]]]:
    """Means over seeds minus those of the reference, both on the same resamples of patients; and of each seed."""
    experiment = plan.experiment
    measured = _measured([*own, *other], experiment.metrics)
    patients = _patients(own)
    pair = [OverSeeds(half, experiment.metrics, patients) for half in (measured[: len(own)], measured[len(own) :])]
    resampled = resample(Both(*pair), np.arange(len(patients)), experiment.resamples)
    each = [_of_all_images(half.parts) for half in pair]
    return {
        name: (
            difference(resampled, f"first/{name}", f"second/{name}", experiment.confidence),
            [float(first[name] - second[name]) for first, second in zip(*each, strict=True)],
        )
        for name in experiment.metrics
        if {f"first/{name}", f"second/{name}"} <= set(resampled.values)
    }


def _of_seeds(
    seeds: Sequence[int], found: tuple[Difference, list[float]] | None
) -> tuple[Difference | None, dict[int, float]]:
    """A difference, and each seed's own."""
    return (None, {}) if found is None else (found[0], dict(zip(seeds, found[1], strict=True)))


def _of_all_images(parts: Sequence[ClassificationMetrics]) -> list[dict[str, float]]:
    """The metrics of each of some predictions, every image once."""
    each = [part(np.ones((1, len(part.predictions)), np.uint8)) for part in parts]
    return [{name: float(value[0]) for name, value in values.items()} for values in each]


def _positives(part: Predictions) -> dict[str, int]:
    counts = np.nansum(np.asarray(part.labels, dtype=float), axis=0)
    return {name: int(count) for name, count in zip(part.class_names, counts, strict=True)}


def _measured(parts: Sequence[Predictions], metrics: Sequence[str]) -> list[ClassificationMetrics]:
    """Their metrics, means over the same classes."""
    bases = sorted({metric.partition("/")[0].removesuffix("_macro") for metric in metrics})
    measured = [ClassificationMetrics(part, bases) for part in parts]
    average_over_common(measured)
    return measured


def _patients(parts: Sequence[Predictions]) -> np.ndarray:
    return np.unique(np.concatenate([np.asarray(part.patients, dtype=str) for part in parts]))


def _corrected(found: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes with the p-values of all their differences corrected together."""
    tests = {
        f"{number}/{name}": estimate.difference.p_value
        for number, outcome in enumerate(found)
        for name, estimate in outcome.estimates.items()
        if estimate.difference is not None
    }
    levels = holm(tests)
    return [
        replace(
            outcome,
            estimates={
                name: replace(estimate, holm=levels.get(f"{number}/{name}", math.nan))
                for name, estimate in outcome.estimates.items()
            },
        )
        for number, outcome in enumerate(found)
    ]
