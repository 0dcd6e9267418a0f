"""A DICOM structured report beside each DICOM image that was scored."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events

from cleft_bundle.data.dicom_results import Model, read_source, save_result, structured_report
from cleft_bundle.errors import RadiographError
from cleft_bundle.extras import require
from cleft_bundle.handlers.journal import PredictionJournal

logger = logging.getLogger(__name__)


class StructuredReportWriter:
    """Write ``<name>.dcm`` for each image of a batch, see :func:`cleft_bundle.data.dicom_results.structured_report`.

    Images that are no DICOM files, or lack the UIDs that a reference needs, get none; the log says how many.

    Args:
        output_dir: folder of the reports.
        class_names: names of the K classes.
        model: what makes the scores.
        journal: knows the images' files and names.

    Raises:
        BundleError: where highdicom is not installed.
    """

    def __init__(self, output_dir: str, class_names: Sequence[str], model: Model, journal: PredictionJournal) -> None:
        require("highdicom", "sr")
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.model = model
        self.journal = journal
        self.skipped: Counter[str] = Counter()

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose batches come from :func:`cleft_bundle.data.collate_readable`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._report)

    def _write(self, engine: Engine) -> None:
        for path, scores in zip(engine.state.batch["path"], engine.state.output["pred"].tolist(), strict=True):
            try:
                source = read_source(self.journal.file(path))
            except RadiographError as error:
                self.skipped[str(error)] += 1
                continue
            report = structured_report(source, dict(zip(self.class_names, scores, strict=True)), self.model)
            save_result(report, self.output_dir / f"{self.journal.name(path)}.dcm")

    def _report(self) -> None:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.skipped.most_common())
        logger.info(f"structured reports: {self.output_dir}" + (f"; images without one: {reasons}" if reasons else ""))
        self.skipped.clear()
