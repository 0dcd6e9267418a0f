"""The evaluation report: ``report.json`` and a page of the same figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monai.engines import SupervisedEvaluator

from cleft_bundle.checkpoints import RunIdentity
from cleft_bundle.data.phantoms.folder import is_phantom
from cleft_bundle.evaluation import sections
from cleft_bundle.evaluation.cases import CasePictures, choose_cases
from cleft_bundle.evaluation.comparison import Comparison
from cleft_bundle.evaluation.figures import Resampling, figures, prompt_sensitivity, row_order, to_predictions
from cleft_bundle.evaluation.operating import Operating
from cleft_bundle.evaluation.provenance import provenance
from cleft_bundle.files import save_text
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
        cases: draws images of each kind: right and sure, missed, false alarms.
        checkpoint: path of the evaluated weights; None where the network has none of its own.
        resampling: how the intervals come about.
        operating: calibration and thresholds of the classes.
        comparison: with other evaluations of the same images.
        identity: the run of the evaluation.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset: Mapping[str, str],
        items: Sequence[Item],
        inferer: ZeroShotInferer,
        cases: CasePictures,
        checkpoint: str | None,
        resampling: Resampling,
        operating: Operating,
        comparison: Comparison,
        identity: RunIdentity,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.dataset = dict(dataset)
        self.items = items
        self.inferer = inferer
        self.cases = cases
        self.checkpoint = checkpoint
        self.resampling = resampling
        self.operating = operating
        self.comparison = comparison
        self.identity = identity

    def write(self, evaluator: SupervisedEvaluator) -> list[Path]:
        """Write both files from what an evaluator has gathered.

        Args:
            evaluator: the engine that has run, with :class:`cleft_bundle.handlers.ZeroShotMetrics` as key metric.

        Returns:
            the paths of the page and of the JSON file.
        """
        details = evaluator.state.metric_details[evaluator.state.key_metric_name]
        predictions = to_predictions(details, self.items, list(self.inferer.prompts), self.inferer.task)
        rows = row_order(details["names"], self.items)
        ranks = (details["image_rank"][rows], details["text_rank"]) if "image_rank" in details else None
        variants = details["variant_scores"][rows].swapaxes(0, 1) if "variant_scores" in details else ()
        cases = choose_cases(predictions, self.cases.count)
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
            "operating_points": self.operating.figures(predictions, details["logits"][rows], self.resampling),
            "prompt_sensitivity": prompt_sensitivity(predictions, variants, self.inferer.variant_prompts),
            "evaluated_as": self.comparison.name,
            "comparisons": self.comparison.figures(predictions, self.resampling, self.output_dir),
            "prompts": self.inferer.prompts,
            "negative_prompts": self.inferer.negatives,
            "cases": {kind: [_numbered(case) for case in chosen] for kind, chosen in cases.items()},
            "provenance": provenance(evaluator.network, self.checkpoint, self.identity),
        }
        weights = self.inferer.weights
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
                (*sections.CASES[kind], self.cases.picture(chosen, predictions, self.items, evaluator.network, weights))
                for kind, chosen in cases.items()
            ],
            config=json.dumps(content["provenance"]["config"], indent=2, default=str),
        )
        save_text(json.dumps(content, indent=1, default=str, allow_nan=False) + "\n", json_path)
        return [html_path, json_path]


def _numbered(case: Mapping[str, Any]) -> dict[str, Any]:
    """A case by its position in the list of images, from 1."""
    return {"position": case["row"] + 1, "class": case["class"], "score": case["score"]}
