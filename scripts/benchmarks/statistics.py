"""Cost of an evaluation's statistics: seconds and memory, section by section."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit  # type: ignore[import-untyped]  # scipy ships no type information

from benchmarks.memory import megabytes, peak_during
from cleft_bundle.metrics import (
    METRICS,
    Predictions,
    Screening,
    apply_thresholds,
    by_unit,
    calibration_line,
    decision_curve,
    delong_comparison,
    delong_intervals,
    paired_bootstrap,
    shift,
    subgroup_metrics,
)
from cleft_bundle.metrics import bootstrap as bootstrap_metrics
from cleft_bundle.metrics.classification import ALL_METRICS
from cleft_bundle.reports.evaluation import (
    CasePictures,
    Comparison,
    Resampling,
    ScoredImages,
    Settings,
    write_report,
)
from cleft_bundle.reports.evaluation.operating import described

GROUPS = {"sex": 2, "age": 5, "race": 5, "ethnicity": 2, "view": 4, "laterality": 2, "density": 4, "manufacturer": 6,
          "presentation_intent": 2}  # fmt: skip


def bootstrap(
    images: int = 50_000,
    findings: int = 14,
    images_per_patient: int = 2,
    resamples: int = 1000,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Compute all statistics of an evaluation of random predictions, then write its whole report, and print a table.

    Args:
        images: number of images.
        findings: number of classes, each with 1 to 30 in 100 positive images.
        images_per_patient: number of images of each patient.
        resamples: number of resamples of the patients.
        seed: of predictions and resamples.
        out: file to write the table to as well.
    """
    logits, first, second = _draw(images, findings, images_per_patient, seed)
    lines = [
        f"{images} images of {len(set(first.patients))} patients, {findings} findings, {resamples} resamples, "
        f"{len(GROUPS)} groups",
        "",
        "| section | seconds | CPU seconds | share of the time, % | more memory at most, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    measured = []
    for name, work in _sections(logits, first, second, resamples, seed).items():
        start, start_cpu = time.perf_counter(), time.process_time()
        more = peak_during(work)
        measured.append((name, time.perf_counter() - start, time.process_time() - start_cpu, more))
    with tempfile.TemporaryDirectory() as folder:
        start, start_cpu = time.perf_counter(), time.process_time()
        more = peak_during(lambda: _write_page(logits, first, second, Path(folder), resamples, seed))
        page = ("the whole report", time.perf_counter() - start, time.process_time() - start_cpu, more)
    whole = sum(row[1] for row in measured)
    measured.append(("all", whole, sum(row[2] for row in measured), max(row[3] for row in measured)))
    lines += [
        f"| {name} | {wall:.1f} | {cpu:.1f} | {100 * wall / whole:.0f} | {more} |" for name, wall, cpu, more in measured
    ]
    name, wall, cpu, more = page
    lines += [f"| {name} | {wall:.1f} | {cpu:.1f} | {100 * wall / whole:.0f} | {more} |"]
    lines += ["", f"The whole process held {megabytes('VmHWM')} MB at most in the last section."]
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


def _draw(
    images: int, findings: int, images_per_patient: int, seed: int
) -> tuple[np.ndarray, Predictions, Predictions]:
    """Logits of one classifier, and the predictions of it and of another."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, findings)) < np.geomspace(0.01, 0.3, findings)).astype(float)
    logits = labels + rng.normal(size=labels.shape) - 2
    names, patients = np.arange(images).astype(str), (np.arange(images) // images_per_patient).astype(str)
    classes = [f"finding {number}" for number in range(1, findings + 1)]
    groups = {name: rng.integers(0, count, images).astype(str) for name, count in GROUPS.items()}
    first = Predictions(expit(logits), labels, classes, "multilabel", names, patients, groups)
    return logits, first, replace(first, scores=expit(logits + 0.3 * rng.normal(size=labels.shape)))


def _write_page(
    logits: np.ndarray, first: Predictions, second: Predictions, folder: Path, resamples: int, seed: int
) -> None:
    """What ``cleft report`` does once the scores are there, without pictures of images: all files, and a comparison."""
    chosen = Screening().choose(logits, first.labels, first.class_names, first.task, first.patients)
    groups = [first.groups[name] for name in GROUPS if name != "age"]
    ages = np.random.default_rng(seed).integers(18, 95, len(first)).astype(float).tolist()
    keys = ("name", "patient_id", "age", *(name for name in GROUPS if name != "age"))
    rows = zip(first.names, first.patients, ages, *groups, strict=True)
    items = [dict(zip(keys, map(_plain, row), strict=True)) for row in rows]
    names, limits = list(first.class_names), chosen.thresholds
    given = {"class_names": names, "task": first.task, "labels": first.labels, "items": items, "thresholds": limits}
    other = ScoredImages(scores=second.scores, name="other", **given)
    resampling = Resampling(resamples, seed=seed)
    Comparison("other", [], items, names).estimates(other, resampling, folder / "other")
    calibration = described(chosen.calibration, "temperature", names)
    scored = ScoredImages(scores=chosen.calibration(logits), logits=logits, calibration=calibration, **given)
    comparison = Comparison("own", [folder / "other"], items, names)
    dataset = {"name": "random", "split": "test", "fingerprint": None, "phantoms": False}
    write_report(scored, folder, dataset, comparison, Settings(resampling, CasePictures(0)))


def _plain(value: Any) -> Any:
    return value if isinstance(value, float) else str(value)


def _sections(
    logits: np.ndarray, first: Predictions, second: Predictions, resamples: int, seed: int
) -> dict[str, Callable[[], Any]]:
    chosen = Screening().choose(logits, first.labels, first.class_names, first.task, first.patients)
    limits = list(chosen.thresholds.values())
    calibrated = replace(first, scores=chosen.calibration(logits))
    columns = list(zip(calibrated.scores.T, calibrated.labels.T, strict=True))
    ages = np.random.default_rng(seed).normal(50, 15, (2, len(first)))
    return {
        "calibration and thresholds": lambda: Screening().choose(
            logits, first.labels, first.class_names, first.task, first.patients
        ),
        "all metrics": lambda: bootstrap_metrics(calibrated, METRICS, resamples, seed, thresholds=limits),
        "operating points": lambda: apply_thresholds(calibrated, chosen.thresholds, None, resamples, seed),
        "all metrics of each group": lambda: subgroup_metrics(
            calibrated, ALL_METRICS, resamples, seed, thresholds=limits
        ),
        "comparison with another": lambda: paired_bootstrap(first, second, METRICS, resamples, seed),
        "DeLong, intervals and comparison": lambda: (delong_intervals(first), delong_comparison(first, second)),
        "calibration lines": lambda: [calibration_line(*column, first.patients) for column in columns],
        "decision curves": lambda: [decision_curve(*column) for column in columns],
        "all metrics by patient": lambda: bootstrap_metrics(
            by_unit(calibrated, first.patients), METRICS, resamples, seed
        ),
        "shift of ages": lambda: shift(ages[0], ages[1]),
    }
