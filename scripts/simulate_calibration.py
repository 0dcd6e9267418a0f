"""Fit temperatures on few images whose best one is known, with and without a penalty: a table of docs/statistics.md.

python scripts/simulate_calibration.py --out calibration.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import fire
import numpy as np
from scipy.special import expit  # type: ignore[import-untyped]  # scipy ships no type information
from scipy.stats import norm  # type: ignore[import-untyped]

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import fit_temperature

AUROCS = (0.9, 0.98, 0.998)
TEMPERATURES = (0.33, 1.0, 3.0)
IMAGES = (15, 30)
LOW = 0.15 / 0.33  # of the best temperature; below it the fit has run away
_FRESH = 20_000


def draw(images: int, auroc: float, temperature: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits [N, 1] that a temperature makes right, of a finding that half of the images have, and labels."""
    distance = np.sqrt(2) * norm.ppf(auroc)
    labels = np.arange(images) % 2
    score = rng.normal(size=images) + distance * labels
    return (temperature * distance * (score - distance / 2))[:, None], labels[:, None].astype(float)


def simulate(auroc: float, temperature: float, fits: int, seed: int) -> dict[str, np.ndarray]:
    """Fit with and without a penalty.

    Returns:
        ``plain`` and ``penalised``: float [fits, 4] of the temperature, the log loss of 20,000 other images, less that
        of the best temperature, the share of other images with a score of exactly 0 or 1 in single precision, and
        whether the interval holds the best temperature.
    """
    rng = np.random.default_rng(seed)
    fresh, truth = draw(_FRESH, auroc, temperature, rng)
    least = _loss(fresh / temperature, truth)
    found: dict[str, list[list[float]]] = {"plain": [], "penalised": []}
    for _ in range(fits):
        logits, labels = draw(int(rng.integers(IMAGES[0], IMAGES[1] + 1)), auroc, temperature, rng)
        for name, rows in found.items():
            fit = fit_temperature(logits, labels, "multilabel", penalised=name == "penalised")
            scores = expit((fresh / fit.temperature).astype(np.float32))
            edge = float(((scores == 0) | (scores == 1)).mean())
            held = fit.low <= temperature <= fit.high
            rows.append([fit.temperature, _loss(fresh / fit.temperature, truth) - least, edge, held])
    return {name: np.array(rows) for name, rows in found.items()}


def main(fits: int = 120, seed: int = 0, out: str | None = None) -> None:
    """Simulate and print the table.

    Args:
        fits: number of fits of each population.
        seed: of the draws.
        out: file to write the table to as well.
    """
    if fits < 1:
        raise BundleError(f"expected 1 fit or more, got {fits}")
    lines = [
        "| AUROC, best T | fit | T below 0.45 of the best | median T | log loss too high by | scores of 0 or 1, % | "
        "interval holds the best T, % |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for auroc in AUROCS:
        for temperature in TEMPERATURES:
            for name, rows in simulate(auroc, temperature, fits, seed).items():
                far, edge, held = (rows[:, 0] < LOW * temperature).sum(), *100 * rows[:, 2:].mean(axis=0)
                lines.append(
                    f"| {auroc:g}, {temperature:g} | {name} | {far} of {fits} | {np.median(rows[:, 0]):.2f} | "
                    f"{rows[:, 1].mean():.3f} | {edge:.1f} | {held:.0f} |"
                )
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


def _loss(odds: np.ndarray, truth: np.ndarray) -> float:
    return float((np.logaddexp(0, odds) - truth * odds).mean())


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
