"""Predictions on disk: one row per image, the unreadable ones with their reason."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator

from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.data.tolerant_dataset import BLANK
from cleft_bundle.files import replacing
from cleft_bundle.inference.journal import PredictionJournal, Scored
from cleft_bundle.names import column, joined
from cleft_bundle.networks.classifiers.typicality import UNUSUAL_BELOW

logger = logging.getLogger(__name__)

_CALLS = ("prediction", "positive")
_TYPICAL = ("typicality", "unusual")
FIXED = ("image", *_CALLS, *_TYPICAL, "error", "name")  # the columns that are no class


class PredictionWriter:
    """Note each batch in a journal, and write ``predictions.csv`` and ``predictions.json`` when an inference run ends.

    The columns are ``image`` (the path as listed), one per class with its probability, ``prediction`` (the class with
    the highest one), ``positive`` (the classes that reach their threshold, by ``|`` in the table), ``typicality`` and
    ``unusual`` (see :class:`cleft_bundle.inference.Scores`; empty where the classifier does not know), ``error``, the
    reason why an image could not be read, or ``blank`` where it shows nothing (then the others are empty), and
    ``name``, by which the image's other files are called. Rows are in the order of the listing. A class's column is
    called as the class is; that of a class called like one of the other columns has ``class:`` before it, see
    :func:`cleft_bundle.names.column`.

    It stands last among the handlers: an image is noted once all its outputs are written.

    Args:
        output_dir: folder of the two files.
        class_names: names of the K classes.
        journal: keeps the rows; it has been given the listing.
        thresholds: names of classes to the score from which on they count as positive, see
            :attr:`cleft_bundle.networks.ZeroShotClassifier.operating_point`; empty: ``positive`` stays empty.
    """

    def __init__(
        self, output_dir: str, class_names: Sequence[str], journal: PredictionJournal, thresholds: Mapping[str, float]
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.journal = journal
        self.thresholds = dict(thresholds)
        self.columns = [column(name, FIXED) for name in self.class_names]

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose batches come from :func:`cleft_bundle.data.collate_readable`."""
        engine.add_event_handler(Events.STARTED, self.journal.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self) -> None:
        """Write both files from what the journal holds of the listing."""
        self.journal.close()
        csv_path, json_path = self.output_dir / "predictions.csv", self.output_dir / "predictions.json"
        for path, write in ((csv_path, self._write_csv), (json_path, self._write_json)):
            with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                write(file)  # row by row: a million rows need not be in memory as text
        errors = [scored.error for *_, scored in self.journal.rows()]
        blank, scored = errors.count(BLANK), errors.count(None)
        counted = f"{scored} images scored, {len(errors) - scored - blank} unreadable"
        counted += f", {blank} blank" if blank else ""
        typical = [scored.typicality for *_, scored in self.journal.rows() if scored.typicality is not None]
        unusual = sum(one < UNUSUAL_BELOW for one in typical)
        counted += f", {unusual} unlike the validation images" if unusual else ""
        logger.info(f"{counted}: {csv_path} and {json_path.name} beside it")

    def _note(self, engine: Engine) -> None:
        batch, scores = engine.state.batch, engine.state.output["pred"]
        known = engine.state.output.get("typicality")
        typicality = [None] * len(scores) if known is None else known.tolist()
        rows_of = zip(scores.cpu().tolist(), typicality, strict=True)
        scored = [Scored(tuple(row), typicality=typical) for row, typical in rows_of]
        rows = dict(zip(batch["path"], scored, strict=True))
        self.journal.append(rows | {one["path"]: Scored(error=one["error"]) for one in batch["failures"]})

    def _rows(self) -> Iterator[dict[str, Any]]:
        for path, name, scored in self.journal.rows():
            row: dict[str, Any] = {"image": path, **dict.fromkeys([*self.columns, *_CALLS, *_TYPICAL])}
            if scored.scores is not None:
                named = dict(zip(self.class_names, scored.scores, strict=True))
                row.update(zip(self.columns, scored.scores, strict=True))
                row["prediction"] = max(named, key=lambda one: named[one])
                if self.thresholds:
                    row["positive"] = [one for one, least in self.thresholds.items() if named[one] >= least]
            if scored.typicality is not None:
                row |= {"typicality": scored.typicality, "unusual": scored.typicality < UNUSUAL_BELOW}
            yield {**row, "error": scored.error, "name": name}

    def _write_csv(self, file: IO[str]) -> None:
        writer = csv.DictWriter(file, ["image", *self.columns, *_CALLS, *_TYPICAL, "error", "name"])
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in self._rows())

    def _write_json(self, file: IO[str]) -> None:
        file.write(json.dumps(self.journal.settings)[:-1] + ',\n "predictions": [')
        for number, row in enumerate(self._rows()):
            file.write((",\n  " if number else "\n  ") + json.dumps(row))
        file.write("\n]}\n")


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return joined(value)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else value  # all digits: what differs must not tie when read back


def score_images(evaluator: SupervisedEvaluator, predictions: PredictionWriter, identity: RunIdentity) -> None:
    """Score the images that have no row yet, write the predictions of all of them, and give the folders back.

    Args:
        evaluator: scores them; the writer is among its handlers.
        predictions: writes the files, also where no image is left to score.
        identity: the run, which holds the folders.
    """
    if len(evaluator.data_loader):
        evaluator.run()
    else:
        predictions.write()
    identity.release()
