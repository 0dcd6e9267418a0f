"""From a running evaluation (``configs/evaluate.json``) to its report: it hands its scores on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.engines import SupervisedEvaluator

from cleft_bundle.checkpoints import ROLES, RunIdentity, roles, unknown_roles
from cleft_bundle.data import known_pictures
from cleft_bundle.data.item import Item
from cleft_bundle.data.phantoms.folder import is_phantom
from cleft_bundle.inferers import ZeroShotInferer
from cleft_bundle.networks.heat_maps import Head
from cleft_bundle.networks.protocol import DualNetwork
from cleft_bundle.reports.evaluation.comparison import Comparison
from cleft_bundle.reports.evaluation.operating import Operating
from cleft_bundle.reports.evaluation.provenance import provenance
from cleft_bundle.reports.evaluation.report import Extras, Settings, write_report
from cleft_bundle.reports.evaluation.same_pictures import same_pictures
from cleft_bundle.reports.evaluation.scored import ScoredImages, row_order
from cleft_bundle.reports.evaluation.shift import Sample, looked_at, sample_of


class EvaluationReport:
    """Write the report of an evaluator that has run, as of the ``model.pt`` that training would make of its network.

    Args:
        output_dir: folder that receives the files of :func:`write_report`.
        dataset: ``name``, ``dir`` (its folder), ``split`` (the one evaluated) and ``fingerprint`` (of all splits).
        items: the evaluated items, of all processes.
        splits: all items by split.
        inferer: holds classes, prompts and task.
        checkpoint: path of the evaluated weights; None where the network has none of its own.
        operating: chooses calibration and thresholds.
        comparison: with other evaluations of the same images.
        settings: how the report is made.
        identity: the run of the evaluation.
    """

    def __init__(
        self,
        output_dir: str | Path,
        dataset: Mapping[str, str],
        items: Sequence[Item],
        splits: Mapping[str, Sequence[Item]],
        inferer: ZeroShotInferer,
        checkpoint: str | None,
        operating: Operating,
        comparison: Comparison,
        settings: Settings,
        identity: RunIdentity,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.dataset = dict(dataset)
        self.items = items
        self.splits = splits
        self.inferer = inferer
        self.checkpoint = checkpoint
        self.operating = operating
        self.comparison = comparison
        self.settings = settings
        self.identity = identity

    def write(self, evaluator: SupervisedEvaluator) -> list[Path]:
        """Write the files from what an evaluator has gathered.

        Args:
            evaluator: the engine that has run, with :class:`cleft_bundle.handlers.ZeroShotMetrics` as key metric.

        Returns:
            the paths of the page, of the JSON file and of the table of images.
        """
        details = evaluator.state.metric_details[evaluator.state.key_metric_name]
        rows = row_order(details["names"], self.items)
        names, task = list(self.inferer.prompts), self.inferer.task
        logits, labels = details["logits"][rows], details["label"][rows]
        scored = ScoredImages(
            class_names=names,
            task=task,
            labels=labels,
            items=self.items,
            name=self.comparison.name,
            logits=logits,
            provenance=provenance(evaluator.network, self.checkpoint, self.identity),
            **self.operating.choose(logits, labels, names, task, self.items),
        )
        pictured = known_pictures(evaluator.data_loader.dataset)
        extras = Extras(
            cohorts=self.splits,
            ranks=(details["image_rank"][rows], details["text_rank"]) if "image_rank" in details else None,
            chance=details.get("retrieval_chance", {}),
            variants=details["variant_scores"][rows].swapaxes(0, 1) if "variant_scores" in details else (),
            variant_prompts=self.inferer.variant_prompts,
            prompts=self.inferer.prompts,
            negative_prompts=self.inferer.negatives,
            explain=self.settings.cases.explain_by(evaluator.network, self._head(evaluator.network, scored), names),
            training=self._sample(self.splits["train"], evaluator.network),
            here=self._sample(self.items, evaluator.network),
            roles=self._roles(),
            pictures=same_pictures(pictured, self.dataset["split"], self.checkpoint),
            unknown_roles=unknown_roles(self.checkpoint) if self.checkpoint else ROLES,
        )
        phantoms = is_phantom(self.dataset["dir"]) or "phantom" in self.dataset["name"].lower()
        dataset = {**self.dataset, "phantoms": phantoms}
        return write_report(scored, self.output_dir, dataset, self.comparison, self.settings, extras)

    def _roles(self) -> dict[str, int]:
        """What the checkpoint, and this evaluation, used how many of the evaluated patients for."""
        found = roles(self.checkpoint, self.items) if self.checkpoint else {}
        chosen_on = self.operating.items or self.items
        evaluated, chose = ({item["patient_id"] for item in items} for items in (self.items, chosen_on))
        return {**found, **dict.fromkeys(("calibration", "thresholds"), len(evaluated & chose))}

    def _head(self, network: DualNetwork, scored: ScoredImages) -> Head:
        """What gives the calibrated logits, as ``model.pt`` would hold it."""
        weights, fitted = self.inferer.weights, scored.calibration
        bias = torch.tensor([fitted["bias"][name] for name in scored.class_names])
        scale = network.scale.detach() / fitted["temperature"]
        return Head(scale * weights, bias.to(weights), scored.task)

    def _sample(self, items: Sequence[Item], network: DualNetwork) -> Sample:
        """What is known of some images, and how some of them look to the network."""
        cases = self.settings.cases
        if cases.transform is None or cases.network_transform is None:
            return sample_of(items)
        steps = cases.transform, cases.network_transform
        device = self.inferer.weights.device

        @torch.no_grad()
        def embed(some: Sequence[Item]) -> np.ndarray:
            rows = [steps[1](steps[0]({"image": item["image"]}))["image"] for item in some]
            return np.concatenate(
                [network.encode_image(torch.as_tensor(row)[None].to(device)).cpu().numpy() for row in rows]
            )

        return looked_at(items, self.settings.shift_images, embed)
