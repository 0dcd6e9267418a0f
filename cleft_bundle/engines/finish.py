"""The end of a run: the files it leaves, and the summary that says where they are and what comes next."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from monai.engines import SupervisedEvaluator

from cleft_bundle.checkpoints import RunIdentity, TrainedState, load_trained
from cleft_bundle.config import command, command_line
from cleft_bundle.distributed import at_first, rank, wait_for_all
from cleft_bundle.engines.classifier_builder import ClassifierBuilder
from cleft_bundle.engines.seen import SeenImages
from cleft_bundle.handlers import RunRecord, RunTracker
from cleft_bundle.handlers.validation import best_of

logger = logging.getLogger(__name__)

PICTURES = ("loss_curve.png", "roc_curves.png", "confusion_matrix.png")


class Report(Protocol):
    """Writer of an evaluation's report, such as :class:`cleft_bundle.reports.evaluation.EvaluationReport`."""

    def write(self, evaluator: SupervisedEvaluator) -> list[Path]:
        """Write what an engine has found, and return the paths of page, estimates and table."""


def finish_training(
    record: RunRecord, classifier_builder: ClassifierBuilder, trained_path: str, models_dir: str
) -> dict[str, float]:
    """Turn the best checkpoint of a run into ``cleft.pt`` and ``model.pt``, evaluate what was written, sum up.

    Of several processes all evaluate and the first one writes.

    Args:
        record: of the run, which must have written its best checkpoint itself. Its network gets the best weights, and
            its validation engine is run once more on these.
        classifier_builder: builds the classifier of ``model.pt``, calibrated on the validation images.
        trained_path: receives the trained weights, such as ``models/cleft.pt``.
        models_dir: receives ``model.pt``.

    Returns:
        the metrics of the best checkpoint.

    Raises:
        BundleError: where the best checkpoint is another run's.
    """
    cleft_path, model_path = Path(trained_path), Path(models_dir) / "model.pt"
    network, evaluator, trained_on = record.network, record.evaluator, record.trained_on
    identity, tracker = record.identity, record.tracker
    with identity.writing(last=True):
        wait_for_all()  # the first process may still be writing the file
        load_trained(network, record.best_checkpoint, identity)
        trained = at_first(TrainedState(network, trained_on, identity).state_dict())
        if rank() == 0:  # before pictures and MLflow
            identity.publish(trained, cleft_path)
        seen = SeenImages()
        seen.attach(evaluator)
        evaluator.run(evaluator.state.best_metric_epoch)
        metrics, described = dict(evaluator.state.metrics), seen.describe()
        provenance = {
            "run": identity.state_dict(),
            "trained_on": trained_on.calibrated().state_dict(),
            "seen": described,
        }
        validation = evaluator.state.metric_details[evaluator.state.key_metric_name]
        if rank() == 0:
            identity.say_replaced(model_path)
        classifier_builder.write(network, model_path, provenance, validation)
        if rank() > 0:
            return metrics
        pictures = [Path(record.output_dir) / name for name in PICTURES]
        tracker.finish([*pictures, model_path], metrics)
    lines = [
        f"training is done; {best_of(evaluator)} was the best on the validation patients:",
        *_metric_lines(metrics),
        f"  run                    {identity.name} ({identity.id})",
        f"  trained weights        {cleft_path}",
        f"  classifier             {model_path}",
        *_output_lines(pictures, tracker),
        *_next_commands(model_path),
    ]
    logger.info("\n".join(lines))
    return metrics


def finish_evaluation(
    evaluator: SupervisedEvaluator,
    report: Report,
    output_dir: str,
    tracker: RunTracker,
    identity: RunIdentity,
) -> dict[str, float]:
    """Write the report of an evaluation, close its MLflow run and sum up.

    Of several processes the first one does.

    Args:
        evaluator: the engine that has run.
        report: writes what it found.
        output_dir: folder of the pictures.
        tracker: closes the MLflow run.
        identity: the run of the evaluation.

    Returns:
        the metrics.
    """
    metrics = dict(evaluator.state.metrics)
    with identity.writing(last=True):
        if rank() > 0:
            return metrics
        pictures = [Path(output_dir) / name for name in PICTURES[1:]]
        page, estimates, _ = report.write(evaluator)
        tracker.finish([*pictures, page, estimates], metrics)
    lines = ["evaluation is done:", *_metric_lines(metrics), f"  report                 {page}"]
    logger.info("\n".join([*lines, *_output_lines(pictures, tracker)]))
    return metrics


def _metric_lines(metrics: Mapping[str, float]) -> list[str]:
    return [f"  {name.replace('_', ' '):<40} {value:.3f}" for name, value in metrics.items()]


def _next_commands(model_path: Path) -> list[str]:
    """The commands by which a shell can go on from here."""
    configs, options = command_line()
    folder = Path(configs[0]).parent if configs else Path("configs")
    evaluated = [name for name in configs or ["configs/train.json"] if Path(name).name != "multi_gpu_train.json"]
    again = command("evaluating", [*evaluated, str(folder / "evaluate.json")], *options)
    of_folder = ("--model_path", str(model_path), "--dataset_dir", "FOLDER")
    return [
        f"evaluate again:  {again}",
        f"score a folder:  {command('run', [str(folder / 'inference.json')], *of_folder)}",
    ]


def _output_lines(pictures: Sequence[Path], tracker: RunTracker) -> list[str]:
    lines = [f"  picture                {path}" for path in pictures if path.is_file()]
    if tracker.tracking_uri:
        lines.append(f"  MLflow                 {tracker.tracking_uri}, run {tracker.identity.name}")
    return lines
