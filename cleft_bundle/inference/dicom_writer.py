"""The base of the handlers that write DICOM objects beside the scored images."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import ClassVar

from ignite.engine import Engine, Events
from pydicom import Dataset

from cleft_bundle.data.dicom.results import ResultSource, read_source
from cleft_bundle.errors import RadiographError
from cleft_bundle.inference.journal import PredictionJournal

logger = logging.getLogger(__name__)


class DicomResultWriter:
    """Write something of each image of a batch; the log says in the end of how many there is none, and why.

    Args:
        output_dir: folder of what is written.
        model: what makes the scores.
        journal: knows the images' files and names.
    """

    what: ClassVar[str]
    lacking: ClassVar[str]

    def __init__(self, output_dir: str, model: ResultSource, journal: PredictionJournal) -> None:
        self.output_dir = Path(output_dir)
        self.model = model
        self.journal = journal
        self.skipped: Counter[str] = Counter()

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose batches come from :func:`cleft_bundle.data.collate_readable`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write_batch)
        engine.add_event_handler(Events.COMPLETED, self._report)

    def write(self, path: str, scores: list[float], typicality: float | None = None) -> None:
        """Write what there is to write of one image.

        Args:
            path: as listed.
            scores: K of them.
            typicality: 0..1; None where it is not known.
        """
        raise NotImplementedError

    def source(self, path: str) -> Dataset | None:
        """Attributes of a listed image for an object that refers to it; None, and counted, where nothing can."""
        try:
            return read_source(self.journal.file(path))
        except RadiographError as error:
            self.skipped[str(error)] += 1
            return None

    def _write_batch(self, engine: Engine) -> None:
        paths, known = engine.state.batch["path"], engine.state.output.get("typicality")
        typicality = [None] * len(paths) if known is None else known.tolist()
        for path, scores, typical in zip(paths, engine.state.output["pred"].tolist(), typicality, strict=True):
            self.write(path, scores, typical)

    def _report(self) -> None:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.skipped.most_common())
        logger.info(f"{self.what}: {self.output_dir}" + (f"; {self.lacking}: {reasons}" if reasons else ""))
        self.skipped.clear()
