"""Count how often 95 % intervals hold the true figure in simulated populations: the table of docs/statistics.md.

OMP_NUM_THREADS=1 python scripts/simulate_coverage.py --processes 2 --out coverage.md
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import fire
from studies.coverage import Population, as_table, coverage

from cleft_bundle.errors import BundleError

POPULATIONS = (
    Population(patients=200, images=4, prevalence=0.15, auroc=0.75, correlation=0.7),
    Population(patients=100, images=4, prevalence=0.3, auroc=0.8, correlation=0.5),
    Population(patients=60, images=4, prevalence=0.4, auroc=0.95, correlation=0.3),
    Population(patients=300, images=1, prevalence=0.1, auroc=0.85),
    Population(patients=100, images=1, prevalence=0.5, auroc=0.8),
    Population(patients=40, images=1, prevalence=0.4, auroc=0.9),
)


def main(
    simulations: int = 2000, resamples: int = 500, seed: int = 0, processes: int = 1, out: str | None = None
) -> None:
    """Simulate and print the table.

    Args:
        simulations: number of draws from each population.
        resamples: number of bootstrap resamples of each draw.
        seed: of the draws.
        processes: populations that are simulated at the same time.
        out: file to write the table to as well.
    """
    if simulations < 1 or resamples < 2:
        raise BundleError(f"expected 1 simulation and 2 resamples or more, got {simulations} and {resamples}")
    simulate = partial(coverage, simulations=simulations, resamples=resamples, seed=seed)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(simulate, POPULATIONS))
    table = as_table(POPULATIONS, results)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
