"""How a fine-tuning ends: its file, its figures, and its point in the comparison."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.engines import SupervisedEvaluator

from cleft_bundle.checkpoints import RunIdentity, TrainedOn, load_finetuned
from cleft_bundle.checkpoints.finetuned import FinetunedState
from cleft_bundle.distributed import rank, wait_for_all
from cleft_bundle.engines.features import embed_together
from cleft_bundle.engines.linear_probe import as_predictions
from cleft_bundle.files import sha256
from cleft_bundle.handlers import LabelEfficiency, RunTracker
from cleft_bundle.networks import probabilities

logger = logging.getLogger(__name__)

METHOD = "fine-tuning"

Item = dict[str, Any]


def finish_finetuning(
    evaluator: SupervisedEvaluator,
    best_checkpoint: str,
    trained_on: TrainedOn,
    trained_path: str,
    items: Mapping[str, Sequence[Item]],
    loading: Mapping[str, Any],
    start: Mapping[str, Any],
    comparison: LabelEfficiency,
    tracker: RunTracker,
    identity: RunIdentity,
) -> None:
    """Write the best classifier of a run, evaluate what was written, and put it into the comparison.

    Of several processes all evaluate and the first one writes.

    Args:
        evaluator: the validation engine, which knows the best epoch.
        best_checkpoint: file that :class:`cleft_bundle.handlers.BestCheckpoint` wrote.
        trained_on: the split and the patients of the training.
        trained_path: receives the classifier, ``finetuned.pt`` in the folder of the run; its learning curve lies there.
        items: ``train``, the items of the training, and ``evaluated``, those whose figures are reported.
        loading: further arguments of :func:`cleft_bundle.engines.features.embed_images`.
        start: ``source``, ``fraction`` and ``checkpoint``, where the training started from.
        comparison: receives the point.
        tracker: closes the MLflow run.
        identity: the run, which must have written the best checkpoint itself.

    Raises:
        BundleError: where the best checkpoint is another run's.
    """
    with identity.writing(last=True):
        wait_for_all()  # the first process may still be writing the file
        network = load_finetuned(best_checkpoint, identity).to(loading["device"])
        logits = embed_together(items["evaluated"], encode=network, **loading)
        if rank() > 0:
            return
        identity.publish(FinetunedState(network, trained_on, identity).state_dict(), trained_path)
        settings: dict[str, Any] = {
            "run": identity.id,
            "best_epoch": evaluator.state.best_metric_epoch,
            "validation_auroc_macro": evaluator.state.best_metric,
        }
        settings |= {"checkpoint": sha256(start["checkpoint"])} if start["source"] == "cleft" else {}
        scores = probabilities(logits, network.task).numpy()
        predictions = as_predictions(scores, items["evaluated"], network.class_names, network.task)
        point = comparison.measure(METHOD, start["source"], start["fraction"], items["train"], predictions, settings)
        with comparison.opened():
            comparison.add(point, tracker.run_id)
        tracker.finish([Path(trained_path).parent / "loss_curve.png"], {})
    done = f"fine-tuning is done; epoch {evaluator.state.best_metric_epoch} was the best on the validation patients:"
    run = f"  run                    {identity.name} ({identity.id})"
    lines = [done, *comparison.summary(), run, f"  classifier             {Path(trained_path)}"]
    logger.info("\n".join(lines))
