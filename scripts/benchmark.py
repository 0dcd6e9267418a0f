"""Measure what the bundle's work costs here, each comparison in one run on one machine.

OMP_NUM_THREADS=2 python scripts/benchmark.py training --out benchmark.md
"""

from __future__ import annotations

import sys

import fire
from benchmarks.exports import exports
from benchmarks.feeding import feeding
from benchmarks.full_size import full_size
from benchmarks.gpu import gpu
from benchmarks.growth import growth
from benchmarks.inference import inference
from benchmarks.inspecting import inspecting
from benchmarks.reading import reading
from benchmarks.statistics import bootstrap
from benchmarks.training import training

from cleft_bundle.errors import BundleError

COMPARISONS = {
    "training": training,
    "full_size": full_size,
    "growth": growth,
    "gpu": gpu,
    "feeding": feeding,
    "reading": reading,
    "inspecting": inspecting,
    "bootstrap": bootstrap,
    "exports": exports,
    "inference": inference,
}


if __name__ == "__main__":
    try:
        fire.Fire(COMPARISONS)
    except BundleError as error:
        sys.exit(f"error: {error}")
