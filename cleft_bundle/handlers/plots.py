"""Pictures of a run: learning curve, ROC curves, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from ignite.engine import Engine, Events
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import auc, roc_curve

from cleft_bundle.best_effort import best_effort
from cleft_bundle.distributed import rank
from cleft_bundle.errors import one_line
from cleft_bundle.files import replacing
from cleft_bundle.handlers.step_values import Losses
from cleft_bundle.metrics import confusion_matrix
from cleft_bundle.names import shorten
from cleft_bundle.secrets import masked

MANY = 25  # classes; of more a picture gives no numbers and not all names
ENDS = 3  # curves named at either end of the AUROC where there are many
LONGEST = 34  # characters of a class's name in a picture
PLAIN: dict[Any, Any] = {"text.parse_math": False}  # a $ in a name is a character
_POINTS = 400  # of a curve


class EvaluationPlots:
    """Draw the ROC curves and the confusion matrix whenever an evaluation ends.

    Args:
        output_dir: folder that receives ``roc_curves.png`` and ``confusion_matrix.png``.
        title: what the images are, such as ``phantoms``.
        split: whose images they are, behind the title.
    """

    def __init__(self, output_dir: str, title: str, split: str = "validation") -> None:
        self.output_dir = Path(output_dir)
        self.title = f"{title}, {split}"

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose key metric is :class:`ZeroShotMetrics`."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw the last evaluation; of several processes the first one does. A failure is told once."""
        if rank() > 0:
            return
        details = engine.state.metric_details[engine.state.key_metric_name]
        scores, labels, class_names = details["scores"], details["label"], details["class_names"]
        with best_effort("the picture of the ROC curves"):
            roc = roc_figure(scores, labels, class_names, self.title)
            save_figure(roc, self.output_dir / "roc_curves.png")
        with best_effort("the picture of the confusion matrix"):
            confusion = confusion_figure(confusion_matrix(scores, labels), class_names, self.title)
            save_figure(confusion, self.output_dir / "confusion_matrix.png")


class LossCurve:
    """Collect the loss of every step and the key metric of every validation, and draw both when training ends.

    Args:
        output_dir: folder that receives ``loss_curve.png``.
        evaluator: the validation engine, whose key metric is drawn beside the loss.
        title: what the images are.
    """

    def __init__(self, output_dir: str, evaluator: Engine, title: str) -> None:
        self.path = Path(output_dir) / "loss_curve.png"
        self.evaluator = evaluator
        self.title = title
        self.losses: list[float] = []
        self.validations: list[tuple[int, float]] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        Losses.of(engine).told_to(self.losses_read)
        engine.add_event_handler(Events.COMPLETED, self._draw)
        self.evaluator.add_event_handler(Events.COMPLETED, self._add_validation, engine)

    def state_dict(self) -> dict[str, Any]:
        """The curve so far, for a run that is resumed."""
        return {"losses": self.losses, "validations": self.validations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the curve of an interrupted run."""
        self.losses, self.validations = list(state["losses"]), [tuple(point) for point in state["validations"]]

    def losses_read(self, losses: Sequence[float]) -> None:
        """Go on with the losses of further steps."""
        self.losses += losses

    def _add_validation(self, evaluator: Engine, trainer: Engine) -> None:
        self.validations.append((trainer.state.iteration, evaluator.state.metrics[evaluator.state.key_metric_name]))

    def _draw(self) -> None:
        if rank() > 0:
            return
        with best_effort("the picture of the learning curve"):
            metric = self.evaluator.state.key_metric_name
            save_figure(loss_figure(self.losses, self.validations, metric, self.title), self.path)


@mpl.rc_context(PLAIN)
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


@mpl.rc_context(PLAIN)
def roc_figure(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw one ROC curve per class; scores and labels [N, K], NaN labels are left out.

    Of more than 25 classes the curves are grey, and the legend names those with the three lowest and the three highest
    AUROCs.
    """
    figure, axes = _axes(title)
    drawn = []
    for index, name in enumerate(class_names):
        known = ~np.isnan(labels[:, index])
        truth, score = labels[known, index], scores[known, index]
        if len(np.unique(truth)) == 2:
            curve = roc_curve(truth, score)[:2]
            area = auc(*curve)
            drawn.append((area, f"{shown_name(name)} ({area:.3f}, n = {int(truth.sum())})", thin_curve(*curve)))
    for kept, (_, label, (false_positive, true_positive)) in zip(named_curves(drawn), drawn, strict=True):
        style: dict[str, Any] = {"label": label, "zorder": 2.5} if kept else {"color": "0.75", "linewidth": 0.6}
        axes.plot(false_positive, true_positive, **style)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=0.8)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    axes.set_aspect("equal")
    axes.legend(fontsize=8, loc="lower right", title="class (AUROC, positives)", title_fontsize=8)
    return figure


def shown_name(name: str) -> str:
    """A name in one line of a picture; matplotlib leaves out of a legend what begins with an underscore."""
    text = shorten(one_line(name, None), LONGEST)
    return f" {text}" if text.startswith("_") else text


def named_curves(curves: Sequence[tuple[Any, ...]]) -> list[bool]:
    """Choice of the curves (AUROC, ...) that a picture names: all, or of more than 25 the three worst and best."""
    order = np.argsort([curve[0] for curve in curves], kind="stable")
    named = set(range(len(curves))) if len(curves) <= MANY else {*order[:ENDS].tolist(), *order[-ENDS:].tolist()}
    return [place in named for place in range(len(curves))]


def thin_curve(across: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most 400 points: more cannot be told apart."""
    kept = np.unique(np.linspace(0, len(across) - 1, min(len(across), _POINTS)).round().astype(int))
    return across[kept], up[kept]


@mpl.rc_context(PLAIN)
def confusion_figure(matrix: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix [K, K], cells shaded by their share of the row; up to 25 classes with their numbers."""
    figure, axes = _axes(title)
    draw_confusion(axes, matrix, class_names)
    return figure


def draw_confusion(axes: Any, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    """Draw a confusion matrix [K, K] on axes, see :func:`confusion_figure`."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(matrix) <= MANY:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "w" if share[row, column] > 0.6 else "k"
            axes.text(column, row, count, ha="center", va="center", fontsize=8, color=colour)
    step = -(-len(class_names) // MANY)  # so that no more than 25 names stand at a side
    places, size = range(0, len(class_names), step), 8 if len(class_names) <= MANY // 2 else 6
    names = [shown_name(class_names[place]) for place in places]
    axes.set_xticks(places, names, rotation=40, ha="right", fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.set_xlabel("highest score")
    axes.set_ylabel("present")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; where that fails there is none, also no earlier one, which would pass for this."""
    path.unlink(missing_ok=True)
    with replacing(path) as temporary, mpl.rc_context(PLAIN):
        figure.savefig(temporary, dpi=120, format="png")


def _axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(shorten(masked(title), 90), fontsize=10)
    return figure, axes
