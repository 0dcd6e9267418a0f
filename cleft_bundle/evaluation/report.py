"""The evaluation report: ``report.json`` and a page of the same figures."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monai.engines import SupervisedEvaluator

from cleft_bundle.data.phantoms.folder import is_phantom
from cleft_bundle.evaluation import sections
from cleft_bundle.evaluation.cases import choose_cases, picture_cases
from cleft_bundle.evaluation.figures import Resampling, figures, row_order, to_predictions
from cleft_bundle.evaluation.provenance import provenance
from cleft_bundle.inferers import ZeroShotInferer
from cleft_bundle.pages import COLOURS, write_page

logger = logging.getLogger(__name__)

Item = dict[str, Any]


class EvaluationReport:
    """Write the figures of an evaluation, for a program and for a person.

    Args:
        output_dir: folder that receives ``report.json`` and ``report.html``.
        dataset: ``name``, ``dir`` (its folder), ``split`` (the one evaluated) and ``fingerprint`` (of all splits).
        items: the evaluated items, of all processes.
        inferer: holds classes, prompts and task.
        transform: from an item to ``image`` [1 or 3, H, W] of 0 to 1; deterministic.
        checkpoint: path of the evaluated weights; None where the network has none of its own.
        resampling: how the intervals come about.
        cases: images to show of each kind: right and sure, missed, false alarms.
        key_metric: name under which :class:`cleft_bundle.handlers.ZeroShotMetrics` is attached.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset: Mapping[str, str],
        items: Sequence[Item],
        inferer: ZeroShotInferer,
        transform: Callable[[Item], Item],
        checkpoint: str | None,
        resampling: Resampling,
        cases: int = 8,
        key_metric: str = "zero_shot_auroc",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.dataset = dict(dataset)
        self.items = items
        self.inferer = inferer
        self.transform = transform
        self.checkpoint = checkpoint
        self.resampling = resampling
        self.cases = cases
        self.key_metric = key_metric

    def write(self, evaluator: SupervisedEvaluator) -> list[Path]:
        """Write both files from what an evaluator has gathered.

        Args:
            evaluator: the engine that has run.

        Returns:
            the paths of the page and of the JSON file.
        """
        details = evaluator.state.metric_details[self.key_metric]
        predictions = to_predictions(details, self.items, list(self.inferer.prompts), self.inferer.task)
        ranks = None
        if "image_rank" in details:
            ranks = details["image_rank"][row_order(details["names"], self.items)], details["text_rank"]
        cases = choose_cases(predictions, self.cases)
        phantoms = is_phantom(self.dataset["dir"]) or "phantom" in self.dataset["name"].lower()
        content = {
            "dataset": {
                **{key: self.dataset[key] for key in ("name", "split", "fingerprint")},
                "images": len(predictions),
                "patients": len(set(predictions.patients)),
                "phantoms": phantoms,
            },
            "task": predictions.task,
            "resampling": asdict(self.resampling),
            **figures(predictions, ranks, self.resampling),
            "prompts": self.inferer.prompts,
            "negative_prompts": self.inferer.negatives,
            "cases": {kind: [_numbered(case) for case in chosen] for kind, chosen in cases.items()},
            "provenance": provenance(evaluator.network, self.checkpoint),
        }
        json_path, html_path = self.output_dir / "report.json", self.output_dir / "report.html"
        write_page(
            html_path,
            "cleft_bundle.evaluation",
            **content,
            phantom=phantoms,
            colour=COLOURS.get(self.dataset["split"], "#8a95a1"),
            tiles=sections.tiles(content),
            parts=sections.parts(content, predictions),
            table=sections.class_table(content),
            shown=[
                (*sections.CASES[kind], picture_cases(chosen, predictions, self.items, self.transform))
                for kind, chosen in cases.items()
            ],
            config=json.dumps(content["provenance"]["config"], indent=2, default=str),
        )
        partial = json_path.with_name(f".{json_path.name}.{os.getpid()}")
        partial.write_text(json.dumps(content, indent=1, default=str, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, json_path)
        return [html_path, json_path]


def _numbered(case: Mapping[str, Any]) -> dict[str, Any]:
    """A case by its position in the list of images, from 1."""
    return {"position": case["row"] + 1, "class": case["class"], "score": case["score"]}
