"""Pictures of a run: learning curve, ROC curves, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from cleft_bundle.distributed import rank
from cleft_bundle.metrics import confusion_matrix


class EvaluationPlots:
    """Draw the ROC curves and the confusion matrix whenever an evaluation ends.

    Args:
        output_dir: folder that receives ``roc_curves.png`` and ``confusion_matrix.png``.
        class_names: names of the K classes.
        key_metric: name under which :class:`ZeroShotMetrics` is attached.
        title: what the images are, such as ``phantoms, validation``.
    """

    def __init__(self, output_dir: str, class_names: Sequence[str], key_metric: str, title: str) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.key_metric = key_metric
        self.title = title

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw the last evaluation; of several processes the first one does."""
        if rank() > 0:
            return
        details = engine.state.metric_details[self.key_metric]
        self.output_dir.mkdir(parents=True, exist_ok=True)
        _save(
            roc_figure(details["scores"], details["label"], self.class_names, self.title),
            self.output_dir / "roc_curves.png",
        )
        matrix = confusion_matrix(details["scores"], details["label"])
        _save(confusion_figure(matrix, self.class_names, self.title), self.output_dir / "confusion_matrix.png")


class LossCurve:
    """Collect the loss of every step and the key metric of every validation, and draw both when training ends.

    Args:
        output_dir: folder that receives ``loss_curve.png``.
        evaluator: the validation engine.
        key_metric: name of the metric drawn beside the loss.
        title: what the images are.
    """

    def __init__(self, output_dir: str, evaluator: Engine, key_metric: str, title: str) -> None:
        self.path = Path(output_dir) / "loss_curve.png"
        self.evaluator = evaluator
        self.key_metric = key_metric
        self.title = title
        self.losses: list[float] = []
        self.validations: list[tuple[int, float]] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add_loss)
        engine.add_event_handler(Events.COMPLETED, self._draw)
        self.evaluator.add_event_handler(Events.COMPLETED, self._add_validation, engine)

    def state_dict(self) -> dict[str, Any]:
        """The curve so far, for a run that is resumed."""
        return {"losses": self.losses, "validations": self.validations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the curve of an interrupted run."""
        self.losses, self.validations = list(state["losses"]), [tuple(point) for point in state["validations"]]

    def _add_loss(self, engine: Engine) -> None:
        self.losses.append(engine.state.output["loss"].item())

    def _add_validation(self, evaluator: Engine, trainer: Engine) -> None:
        self.validations.append((trainer.state.iteration, evaluator.state.metrics[self.key_metric]))

    def _draw(self) -> None:
        if rank() > 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _save(loss_figure(self.losses, self.validations, self.key_metric, self.title), self.path)


def loss_figure(losses: Sequence[float], validations: Sequence[tuple[int, float]], metric: str, title: str) -> Figure:
    """Draw the training loss by step, smoothed over a twentieth of the run, and the validation metric."""
    figure, axes = _axes(title)
    axes.plot(np.arange(1, len(losses) + 1), losses, color="0.8", linewidth=0.8)
    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(np.arange(window, len(losses) + 1), smooth, color="C0", label="training loss")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss", color="C0")
    if validations:
        right = axes.twinx()
        right.plot(*zip(*validations, strict=True), color="C1", marker="o", markersize=4)
        right.set_ylabel(f"validation {metric.replace('_', ' ')}", color="C1")
        right.set_ylim(0, 1.02)
    return figure


def roc_figure(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw one ROC curve a class; scores and labels [N, K], NaN labels are left out."""
    figure, axes = _axes(title)
    for index, name in enumerate(class_names):
        known = ~np.isnan(labels[:, index])
        truth, score = labels[known, index], scores[known, index]
        if len(np.unique(truth)) == 2:
            false_positive, true_positive, _ = roc_curve(truth, score)
            label = f"{name} ({roc_auc_score(truth, score):.3f}, n = {int(truth.sum())})"
            axes.plot(false_positive, true_positive, label=label)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=0.8)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    axes.set_aspect("equal")
    axes.legend(fontsize=8, loc="lower right", title="class (AUROC, positives)", title_fontsize=8)
    return figure


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix [K, K], cells shaded by their share of the row."""
    figure, axes = _axes(title)
    draw_confusion(axes, matrix, class_names)
    return figure


def draw_confusion(axes: Any, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    """Draw a confusion matrix [K, K] on axes, see :func:`confusion_figure`."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        axes.text(
            column, row, count, ha="center", va="center", fontsize=8, color="w" if share[row, column] > 0.6 else "k"
        )
    axes.set_xticks(range(len(class_names)), class_names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(class_names)), class_names, fontsize=8)
    axes.set_xlabel("highest score")
    axes.set_ylabel("present")


def _axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
