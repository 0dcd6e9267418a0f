"""The end of a fine-tuning: its file, its figures, and its point in the label_efficiency."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cleft_bundle.checkpoints import RunIdentity, TrainedOn, check_pictures, load_finetuned
from cleft_bundle.checkpoints.finetuned import FinetunedState
from cleft_bundle.data.item import Item
from cleft_bundle.data.usable_labels import label_matrix
from cleft_bundle.distributed import rank, wait_for_all
from cleft_bundle.engines.classifier_builder import calibrate, learn_typicality
from cleft_bundle.engines.features import embed_together
from cleft_bundle.engines.linear_probe import as_predictions
from cleft_bundle.engines.seen import describe_seen, grey_levels
from cleft_bundle.files import sha256
from cleft_bundle.handlers import LabelEfficiency, RunRecord
from cleft_bundle.handlers.validation import best_of, counted_in
from cleft_bundle.metrics import Screening
from cleft_bundle.networks import FinetunedClassifier, probabilities

logger = logging.getLogger(__name__)

METHOD = "fine-tuning"


class FinetunedWriter:
    """Write a fine-tuned classifier that is ready to be deployed.

    Args:
        path: receives it, such as ``models/finetuned.pt``.
        trained_on: the split and the patients of the training.
        screening: how calibration and thresholds are chosen.
    """

    def __init__(self, path: str | Path, trained_on: TrainedOn, screening: Screening) -> None:
        self.path = Path(path)
        self.trained_on = trained_on
        self.screening = screening

    def write(
        self,
        classifier: FinetunedClassifier,
        items: Sequence[Item],
        looked: tuple[torch.Tensor, torch.Tensor],
        identity: RunIdentity,
    ) -> None:
        """Choose calibration and thresholds on validation images, and write the file.

        Args:
            classifier: the best one of a training; it gets what is chosen.
            items: N validation items with their labels.
            looked: grey levels [N, 2] and embeddings [N, D] of their images.
            identity: the run, which the file names.
        """
        device = classifier.bias.device
        logits = classifier.raw_logits(looked[1].to(device)).double().cpu().numpy()
        patients = [item["patient_id"] for item in items]
        calibrate(classifier, self.screening, logits, label_matrix(items), patients)
        learn_typicality(classifier, looked[1].numpy(), label_matrix(items), patients)
        classifier.to(device)
        classifier.provenance = {"seen": describe_seen(*looked)}
        state = FinetunedState(classifier.network, self.trained_on.calibrated(), identity, classifier)
        identity.publish(state.state_dict(), self.path)


def finish_finetuning(
    record: RunRecord,
    writer: FinetunedWriter,
    items: Mapping[str, Sequence[Item]],
    loading: Mapping[str, Any],
    start: Mapping[str, Any],
    label_efficiency: LabelEfficiency,
) -> None:
    """Calibrate the best classifier of a run, write and evaluate it, and put it into the label_efficiency.

    Calibration and thresholds are chosen on the validation images, as those of ``model.pt`` are.

    Of several processes all evaluate and the first one writes.

    Args:
        record: of the run, which must have written its best checkpoint itself.
        writer: calibrates and writes the classifier, ``finetuned.pt`` in the folder of the run; its learning curve lies
            there.
        items: ``train``, the items of the training, ``validation``, those that choose calibration and thresholds, and
            ``evaluated``, those whose figures are reported.
        loading: further arguments of :func:`cleft_bundle.engines.features.embed_images`.
        start: ``source``, ``fraction`` and ``checkpoint``, where the training started from.
        label_efficiency: receives the point.

    Raises:
        BundleError: where the best checkpoint is another run's.
    """
    identity, best = record.identity, record.evaluator.state
    with identity.writing(last=True), torch.no_grad():
        wait_for_all()  # the first process may still be writing the file
        network = load_finetuned(record.best_checkpoint, identity).to(loading["device"])
        classifier = FinetunedClassifier(network).eval()
        validation = _look(classifier, items["validation"], loading)
        same = items["evaluated"] is items["validation"]
        evaluated = validation if same else _look(classifier, items["evaluated"], loading)
        logits = classifier.raw_logits(evaluated.embeddings.to(loading["device"])).cpu()
        if rank() > 0:
            return
        check_pictures(record.trained_on, evaluated.items)
        writer.write(classifier, items["validation"], (validation.greys, validation.embeddings), identity)
        settings: dict[str, Any] = {
            "run": identity.id,
            f"best_{counted_in(record.evaluator)}": best.best_metric_epoch,
            "validation_auroc_macro": best.best_metric,
        }
        settings |= {"checkpoint": sha256(start["checkpoint"])} if start["source"] == "cleft" else {}
        scores = probabilities(logits, network.task).numpy()
        predictions = as_predictions(scores, items["evaluated"], network.class_names, network.task)
        point = label_efficiency.measure(
            METHOD, start["source"], start["fraction"], items["train"], predictions, settings
        )
        with label_efficiency.opened():
            label_efficiency.add(point, record.tracker.run_id)
        record.tracker.finish([writer.path.parent / "loss_curve.png"], {})
    done = f"fine-tuning is done; {best_of(record.evaluator)} was the best on the validation patients:"
    run = f"  run                    {identity.name} ({identity.id})"
    lines = [done, *label_efficiency.summary(), run, f"  classifier             {writer.path}"]
    logger.info("\n".join(lines))


class _Looked(NamedTuple):
    """N images that were read once: grey levels [N, 2], embeddings [N, D], and items with the digests of pictures."""

    greys: torch.Tensor
    embeddings: torch.Tensor
    items: list[Item]


def _look(classifier: FinetunedClassifier, items: Sequence[Item], loading: Mapping[str, Any]) -> _Looked:

    def encode(image: torch.Tensor) -> torch.Tensor:
        return torch.cat([grey_levels(image), classifier.embed(image)], dim=1)

    rows, pictured = embed_together(items, encode=encode, **loading)
    return _Looked(rows[:, :2], rows[:, 2:], pictured)
