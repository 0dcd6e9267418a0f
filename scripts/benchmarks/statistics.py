"""What a bootstrap by patients costs: seconds and memory, of some metrics and of all."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.memory import megabytes, peak_during
from cleft_bundle.metrics import Predictions
from cleft_bundle.metrics import bootstrap as bootstrap_metrics
from cleft_bundle.metrics.classification import METRICS, RANKED, THRESHOLDED


def bootstrap(
    images: int = 50_000,
    findings: int = 14,
    images_per_patient: int = 2,
    resamples: int = 1000,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Resample the patients of random predictions and print a table.

    Args:
        images: number of images.
        findings: number of classes, each with 1 to 30 in 100 positive images.
        images_per_patient: number of images of each patient.
        resamples: number of resamples.
        seed: of predictions and resamples.
        out: file to write the table to as well.
    """
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, findings)) < np.geomspace(0.01, 0.3, findings)).astype(float)
    scores = 1 / (1 + np.exp(2 - labels - rng.normal(size=labels.shape)))
    names, patients = np.arange(images).astype(str), (np.arange(images) // images_per_patient).astype(str)
    classes = [f"finding {number}" for number in range(1, findings + 1)]
    predictions = Predictions(scores, labels, classes, "multilabel", names, patients)
    parts = {
        "AUROC, average precision, F1, precision, sensitivity, specificity, accuracies": (*RANKED, *THRESHOLDED),
        "and Brier and ECE": METRICS,
    }
    lines = [
        f"{images} images of {len(set(patients))} patients, {findings} findings, {resamples} resamples",
        "",
        "| metrics | seconds | CPU seconds | more memory at most, MB | whole process at most, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, metrics in parts.items():
        start, start_cpu = time.perf_counter(), time.process_time()
        more = peak_during(lambda chosen=metrics: bootstrap_metrics(predictions, chosen, resamples, seed))
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        lines.append(f"| {name} | {seconds:.1f} | {cpu:.1f} | {more} | {megabytes('VmHWM')} |")
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")
