"""Label efficiency: what an image tower makes of 1, 10 or 100 % of the labels, gathered over methods and commands."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cleft_bundle.best_effort import best_effort
from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.data.datalists import fingerprint
from cleft_bundle.files import save_text
from cleft_bundle.handlers.mlflow_handler import GuardedMLFlowHandler
from cleft_bundle.handlers.plots import PLAIN, save_figure
from cleft_bundle.handlers.tracking import RunTracker, unique_run_name
from cleft_bundle.metrics import Interval, Predictions, bootstrap
from cleft_bundle.secrets import masked, masked_values

logger = logging.getLogger(__name__)

METRICS = ("auroc", "average_precision", "accuracy", "balanced_accuracy")
SHOWN = "auroc_macro"
COLOURS = {"cleft": "C0", "backbone": "C1", "random": "0.45"}
SPREAD = 1.05  # factor between neighbouring points of one fraction, so that their intervals stay apart


@dataclass(frozen=True)
class Point:
    """One method from one source on one fraction of the labels.

    Args:
        method: such as ``linear probe``.
        source: where the image tower came from: ``cleft``, ``backbone`` or ``random``.
        fraction: share of the training patients.
        train_images: number of training images.
        train_patients: number of their patients.
        figures: metrics of the evaluated split.
        settings: what else is worth keeping, such as the ``C`` that was chosen.
    """

    method: str
    source: str
    fraction: float
    train_images: int
    train_patients: int
    figures: Mapping[str, Interval]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, float]:
        """What tells it from other points of a comparison."""
        return self.method, self.source, self.fraction


class LabelEfficiency:
    """The points of a comparison, as ``label_efficiency.json`` and ``.png`` and as runs of one MLflow experiment.

    In MLflow every point is a child of one parent run, which keeps the table and the picture. Where ``output_dir``
    holds a comparison of the same images by the same backbone, points are added to it and to its parent run, so that
    several commands make one picture; a point that is computed anew replaces the old one. A comparison of something
    else is replaced.

    Args:
        output_dir: receives ``label_efficiency.json`` and ``label_efficiency.png``.
        tracking_uri: where MLflow keeps runs; empty: nothing is tracked.
        experiment_name: MLflow's experiment.
        items: what is evaluated.
        setting: what all points have in common, ``evaluate_split`` among it; JSON-able values.
        title: what the images are.
        resamples: of the intervals.
        confidence: of the intervals.
        seed: of the resamples.
    """

    def __init__(
        self,
        output_dir: str,
        tracking_uri: str,
        experiment_name: str,
        items: Sequence[dict[str, Any]],
        setting: Mapping[str, Any],
        title: str,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        if setting["evaluate_split"] == "validation":
            logger.warning("evaluate_split is validation, on which C or the epoch is chosen too: the figures are a "
                           "little too good")  # fmt: skip
        self.output_dir = Path(output_dir)
        self.tracking: dict[str, Any] = {"tracking_uri": tracking_uri, "experiment_name": experiment_name}
        evaluated = {
            "evaluated_fingerprint": fingerprint({"evaluated": items}),
            "evaluated_images": len(items),
            "evaluated_patients": len({item["patient_id"] for item in items}),
        }
        intervals = {"confidence": confidence, "resamples": resamples, "seed": seed}
        self.setting = masked_values(json.loads(json.dumps({"title": title, **setting, **evaluated, **intervals})))
        self.parent: str | None = None
        self.points: dict[tuple[str, str, float], Point] = {}
        self._tracker: RunTracker | None = None

    @property
    def table(self) -> Path:
        """The file of the figures."""
        return self.output_dir / "label_efficiency.json"

    @property
    def picture(self) -> Path:
        """The file of the plot."""
        return self.output_dir / "label_efficiency.png"

    def measure(
        self,
        method: str,
        source: str,
        fraction: float,
        train_items: Sequence[dict[str, Any]],
        predictions: Predictions,
        settings: Mapping[str, Any],
    ) -> Point:
        """Compute the figures of some predictions, with intervals by resampling patients."""
        resamples, seed, confidence = (self.setting[name] for name in ("resamples", "seed", "confidence"))
        figures = bootstrap(predictions, METRICS, resamples, seed, confidence)
        patients = {item["patient_id"] for item in train_items}
        return Point(method, source, fraction, len(train_items), len(patients), figures, settings)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Take points by :meth:`add`; at the end write table and picture, and close the parent run."""
        self._read()
        self._tracker = RunTracker(identity=RunIdentity(unique_run_name("label_efficiency"), ()), **self.tracking)
        self.parent = self._tracker.start(self.parent)
        try:
            yield
        except BaseException:
            self._tracker.fail()
            raise
        self._write()
        self._tracker.finish([self.table, self.picture], {})

    def add(self, point: Point, run_id: str | None = None) -> None:
        """Take a point, and log it as a child of the parent run.

        Args:
            point: the point.
            run_id: MLflow's run that the point came from. None makes one.
        """
        # figures of another checkpoint do not belong beside those of this one
        checkpoint = point.settings.get("checkpoint")
        stale = [
            key
            for key, other in self.points.items()
            if other.source == point.source and other.settings.get("checkpoint") != checkpoint
        ]
        if stale:
            logger.warning("%d points of %s came from another checkpoint: they are left out", len(stale), point.source)
        for key in [*stale, point.key]:
            self.points.pop(key, None)
        self.points[point.key] = point
        handler = None if self._tracker is None else self._tracker.handler
        if handler is not None and self.parent is not None:
            handler.attempt(self._log, handler, point, run_id)

    def summary(self) -> list[str]:
        """The points as lines of a table."""
        share = f"{100 * self.setting['confidence']:.4g} %"
        head = f"  {'method':<14} {'source':<10} {'labels':>7} {'images':>7}  macro AUROC ({share} interval)"
        files = [f"  table                  {self.table}", f"  picture                {self.picture}"]
        if uri := self.tracking["tracking_uri"]:
            files.append(f"  MLflow                 {masked(uri)}, experiment {self.tracking['experiment_name']}")
        return [head, *(_line(point) for point in self._sorted()), *files]

    def _log(self, handler: GuardedMLFlowHandler, point: Point, run_id: str | None) -> None:
        client, child = handler.client, run_id
        if child is None:
            name = unique_run_name(point.method.replace(" ", "_"))
            child = str(client.create_run(handler.experiment.experiment_id, run_name=name).info.run_id)
        client.set_tag(child, "mlflow.parentRunId", self.parent)
        described = {"method": point.method, "source": point.source, "label_fraction": point.fraction}
        described |= {"train_images": point.train_images, "train_patients": point.train_patients, **point.settings}
        figures = {f"{self.setting['evaluate_split']}_{name}": value for name, value in _flat(point.figures).items()}
        client.log_values(child, figures, {f"point_{name}": value for name, value in described.items()})
        if run_id is None:
            client.set_terminated(child)

    def _read(self) -> None:
        if not self.table.is_file():
            return
        stored = json.loads(self.table.read_text(encoding="utf-8"))
        if stored.get("setting") != self.setting:
            logger.warning("%s is of another comparison and is replaced", self.table)
            return
        if stored["tracking_uri"] == masked(self.tracking["tracking_uri"]):
            self.parent = stored["parent_run"]
        for row in stored["points"]:
            point = Point(**{**row, "figures": {name: _interval(figure) for name, figure in row["figures"].items()}})
            self.points[point.key] = point

    def _write(self) -> None:
        content = {
            "setting": self.setting,
            "tracking_uri": masked(self.tracking["tracking_uri"]),
            "parent_run": self.parent,
            "points": [_without_nan(asdict(point)) for point in self._sorted()],
        }
        save_text(json.dumps(content, indent=1, allow_nan=False) + "\n", self.table)
        setting = self.setting
        title = (
            f"{setting['title']}, {setting['evaluate_split']}: {setting['evaluated_images']} images of "
            f"{setting['evaluated_patients']} patients"
        )
        with best_effort("the picture of the label efficiency"):
            save_figure(label_efficiency_figure(self._sorted(), title, setting["confidence"]), self.picture)

    def _sorted(self) -> list[Point]:
        order = list(COLOURS)
        return sorted(self.points.values(), key=lambda p: (p.method, order.index(p.source), p.fraction))


@mpl.rc_context(PLAIN)
def label_efficiency_figure(points: Sequence[Point], title: str, confidence: float = 0.95) -> Figure:
    """Draw the macro AUROC over the share of the labels, one line a method and source, with intervals."""
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    methods = list(dict.fromkeys(point.method for point in points))
    lines = list(dict.fromkeys((point.method, point.source) for point in points))
    for number, (method, source) in enumerate(lines):
        row = [point for point in points if (point.method, point.source) == (method, source) and SHOWN in point.figures]
        values = [point.figures[SHOWN] for point in row]
        spread = SPREAD ** (number - (len(lines) - 1) / 2)
        style: dict[str, Any] = {
            "color": COLOURS[source],
            "linestyle": ("-", "--", ":")[methods.index(method)],
            "linewidth": 1.6,
        }
        errors = [
            [0.0 if math.isnan(v.low) else max(0.0, v.value - v.low) for v in values],
            [0.0 if math.isnan(v.high) else max(0.0, v.high - v.value) for v in values],
        ]
        axes.errorbar(
            [point.fraction * spread for point in row],
            [value.value for value in values],
            yerr=errors,
            marker="os^"[methods.index(method)],
            markersize=5,
            capsize=3,
            label=f"{method}, {source}",
            **style,
        )
    axes.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    sizes: dict[float, int] = {point.fraction: point.train_images for point in points}
    axes.set_xticks(list(sizes), [f"{100 * share:.4g} %\n{count} images" for share, count in sizes.items()])
    axes.minorticks_off()
    axes.set_xlabel("labels of the training split")
    axes.set_ylabel(f"macro AUROC, {100 * confidence:.4g} % interval by patient")
    axes.grid(axis="y", color="0.92")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="best", frameon=False)
    return figure


def _interval(stored: Mapping[str, Any]) -> Interval:
    """An interval that was stored with None in place of NaN."""
    known: dict[str, Any] = {key: math.nan if value is None else value for key, value in stored.items()}
    return Interval(**known)


def _flat(figures: Mapping[str, Interval]) -> dict[str, float]:
    """Values and bounds by names; a bound is told before the class, whose name may end in anything."""
    flat = {}
    for name, figure in figures.items():
        flat[name] = figure.value
        if figure.is_known:
            metric, slash, class_name = name.partition("/")
            flat |= {f"{metric}_{end}{slash}{class_name}": getattr(figure, end) for end in ("low", "high")}
    return flat


def _line(point: Point) -> str:
    figure = point.figures.get(SHOWN)
    shown = "not defined" if figure is None else f"{figure.value:.3f}"
    if figure is not None:
        shown += f" ({figure.low:.3f} to {figure.high:.3f})" if figure.is_known else " (too few patients)"
    share = f"{100 * point.fraction:.4g} %"
    return f"  {point.method:<14} {point.source:<10} {share:>7} {point.train_images:>7}  {shown}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(child) for key, child in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
