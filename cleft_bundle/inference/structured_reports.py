"""A DICOM structured report beside each DICOM image that was scored."""

from __future__ import annotations

from collections.abc import Sequence

from cleft_bundle.data.dicom.results import ResultSource, save_result, structured_report
from cleft_bundle.extras import require
from cleft_bundle.inference.dicom_writer import DicomResultWriter
from cleft_bundle.inference.journal import PredictionJournal
from cleft_bundle.networks.classifiers.typicality import UNUSUAL_BELOW


class StructuredReportWriter(DicomResultWriter):
    """Write ``<name>.dcm`` for each image of a batch, see :func:`cleft_bundle.data.dicom.results.structured_report`.

    Images that are no DICOM files, or lack the UIDs that a reference needs, get none; the log says how many.

    Args:
        output_dir: folder of the reports.
        class_names: names of the K classes.
        model: what makes the scores.
        journal: knows the images' files and names.

    Raises:
        BundleError: where highdicom is not installed.
    """

    what = "structured reports"
    lacking = "images without one"

    def __init__(
        self, output_dir: str, class_names: Sequence[str], model: ResultSource, journal: PredictionJournal
    ) -> None:
        require("highdicom", "sr")
        super().__init__(output_dir, model, journal)
        self.class_names = list(class_names)

    def write(self, path: str, scores: list[float], typicality: float | None = None) -> None:
        """Write the report of one image, if it can be referred to; see :meth:`DicomResultWriter.write`."""
        if (source := self.source(path)) is not None:
            named = dict(zip(self.class_names, scores, strict=True))
            unusual = typicality is not None and typicality < UNUSUAL_BELOW
            report = structured_report(source, named, self.model, unusual=unusual)
            save_result(report, self.output_dir / f"{self.journal.name(path)}.dcm")
