"""Predictions on disk: one row an image, the unreadable ones with their reason."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)


class PredictionWriter:
    """Write ``predictions.csv`` and ``predictions.json`` when an inference run ends.

    The columns are ``image`` (path below the input folder), one a class with its probability, ``prediction`` (the
    class with the highest one) and ``error``, the reason why an image could not be read; then the others are empty.

    Args:
        output_dir: folder of the two files.
        class_names: names of the K classes.
    """

    def __init__(self, output_dir: str, class_names: Sequence[str]) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose batches come from :func:`cleft_bundle.data.collate_readable`."""
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        batch, scores = engine.state.batch, engine.state.output["pred"]
        for path, row in zip(batch["path"], scores.cpu().tolist(), strict=True):
            named = dict(zip(self.class_names, row, strict=True))
            self.rows.append({"image": path, **named, "prediction": max(named, key=named.__getitem__), "error": None})
        for failure in batch["failures"]:
            empty = dict.fromkeys([*self.class_names, "prediction"])
            self.rows.append({"image": failure["path"], **empty, "error": failure["error"]})

    def _write(self) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        rows = sorted(self.rows, key=lambda row: row["image"])
        csv_path, json_path = self.output_dir / "predictions.csv", self.output_dir / "predictions.json"
        with csv_path.with_suffix(".tmp").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["image", *self.class_names, "prediction", "error"])
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        csv_path.with_suffix(".tmp").replace(csv_path)
        content = {"class_names": self.class_names, "predictions": rows}
        json_path.with_suffix(".tmp").write_text(json.dumps(content, indent=1), encoding="utf-8")
        json_path.with_suffix(".tmp").replace(json_path)
        failed = sum(row["error"] is not None for row in rows)
        logger.info(
            f"{len(rows) - failed} images scored, {failed} unreadable: {csv_path} and {json_path.name} beside it"
        )


def _cell(value: Any) -> Any:
    return f"{value:.6f}" if isinstance(value, float) else value
