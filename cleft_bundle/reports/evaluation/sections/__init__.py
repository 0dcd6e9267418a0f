"""The sections of an evaluation report, by topic: figures in, texts, tables and pictures out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleft_bundle.reports.evaluation.scored import ScoredImages
from cleft_bundle.reports.evaluation.sections import (
    calibration,
    comparisons,
    discrimination,
    overview,
    patients,
    retrieval,
    subgroups,
    thresholds,
    units,
)

__all__ = ["overview", "sections"]


def sections(content: Mapping[str, Any], scored: ScoredImages) -> list[dict[str, Any]]:
    """All sections that have something to say, in the order of the page, see :func:`.parts.section`."""
    return [
        *patients.about(content),
        *patients.flow(content),
        *patients.table_one(content),
        *patients.shift(content),
        *discrimination.sections(content, scored),
        *calibration.sections(content),
        *thresholds.sections(content),
        *units.sections(content),
        *subgroups.sections(content),
        *comparisons.comparisons(content),
        *comparisons.prompts(content),
        *retrieval.sections(content),
    ]
