"""Label efficiency: what an image tower makes of 1, 10 or 100 % of the labels, gathered over methods and commands.

The ledger is the table in the folder and not MLflow, whose store may be switched off, masked, or out of reach of the
command that adds the next point.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cleft_bundle.best_effort import best_effort
from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.data.datalists import fingerprint
from cleft_bundle.data.item import Item
from cleft_bundle.files import save_text
from cleft_bundle.handlers.label_points import COLOURS, Point, label_efficiency_figure, over_seeds, table
from cleft_bundle.handlers.mlflow_handler import GuardedMLFlowHandler
from cleft_bundle.handlers.plots import save_figure
from cleft_bundle.handlers.tracking import RunTracker, unique_run_name
from cleft_bundle.metrics import Interval, Predictions, bootstrap
from cleft_bundle.metrics.score_files import keep_scores
from cleft_bundle.secrets import masked, masked_values

logger = logging.getLogger(__name__)

METRICS = ("auroc", "average_precision", "accuracy", "balanced_accuracy")


class LabelEfficiency:
    """The points of a comparison, as ``label_efficiency.json`` and ``.png`` and as runs of one MLflow experiment.

    The scores of every point are kept under ``scores/``, see :mod:`cleft_bundle.metrics.score_files`.

    In MLflow every point is a child of one parent run, which keeps the table and the picture. Where ``output_dir``
    holds a comparison of the same images by the same backbone, points are added to it and to its parent run, so that
    several commands make one picture. A point replaces one of the same method, source, checkpoint, fraction and seeds,
    and no other. A comparison of something else is set aside, under a name with a few digits of its own, and comes
    back when it is gone on with.

    Args:
        output_dir: receives ``label_efficiency.json`` and ``label_efficiency.png``.
        tracking_uri: where MLflow keeps runs; empty: nothing is tracked.
        experiment_name: MLflow's experiment.
        items: what is evaluated.
        setting: what all points have in common, ``evaluate_split`` among it; JSON-able values.
        title: what the images are.
        resamples: of the intervals.
        confidence: of the intervals.
        seeds: those of the run, which its points keep: ``seed`` (of weights and order), ``subset_seed`` and
            ``split_seed``.
        seed: of the resamples: the same for all points, so that it is none of a run's seeds.
    """

    def __init__(
        self,
        output_dir: str,
        tracking_uri: str,
        experiment_name: str,
        items: Sequence[Item],
        setting: Mapping[str, Any],
        title: str,
        resamples: int = 1000,
        confidence: float = 0.95,
        seeds: Mapping[str, int] | None = None,
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
        self.seeds = dict(seeds or {})
        self.parent: str | None = None
        self.points: dict[tuple[object, ...], Point] = {}
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
        train_items: Sequence[Item],
        predictions: Predictions,
        settings: Mapping[str, Any],
    ) -> Point:
        """Compute the figures of some predictions, with intervals by resampling patients, and keep their scores."""
        resamples, seed, confidence = (self.setting[name] for name in ("resamples", "seed", "confidence"))
        estimates = bootstrap(predictions, METRICS, resamples, seed, confidence)
        patients = {item["patient_id"] for item in train_items}
        point = Point(method, source, fraction, len(train_items), len(patients), estimates, settings, self.seeds)
        keep_scores(self._scores_of(point), f"{method}, {source}", predictions, about=_described(point))
        return point

    def _scores_of(self, point: Point) -> Path:
        """The file of a point's scores, which no other point of this folder has."""
        digits = hashlib.sha256(repr(point.key).encode()).hexdigest()[:8]
        name = f"{point.method}_{point.source}_{point.fraction:g}_{digits}".replace(" ", "_")
        return self.output_dir / "scores" / f"{name}.npz"

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
        self.points[point.key] = point
        handler = None if self._tracker is None else self._tracker.handler
        if handler is not None and self.parent is not None:
            handler.attempt(self._log, handler, point, run_id)

    def summary(self) -> list[str]:
        """The points as lines of a table."""
        share = f"{100 * self.setting['confidence']:.4g} %"
        files = [f"  table                  {self.table}", f"  picture                {self.picture}"]
        if uri := self.tracking["tracking_uri"]:
            files.append(f"  MLflow                 {masked(uri)}, experiment {self.tracking['experiment_name']}")
        return [*table(self._sorted(), share), *files]

    def _log(self, handler: GuardedMLFlowHandler, point: Point, run_id: str | None) -> None:
        client, child = handler.client, run_id
        if child is None:
            name = unique_run_name(point.method.replace(" ", "_"))
            child = str(client.create_run(handler.experiment.experiment_id, run_name=name).info.run_id)
        client.set_tag(child, "mlflow.parentRunId", self.parent)
        described = {"method": point.method, "source": point.source, "label_fraction": point.fraction}
        described |= {
            "train_images": point.train_images,
            "train_patients": point.train_patients,
            **point.seeds,
            **point.settings,
        }
        estimates = {
            f"{self.setting['evaluate_split']}_{name}": value for name, value in _flat(point.estimates).items()
        }
        client.log_values(child, estimates, {f"point_{name}": value for name, value in described.items()})
        if run_id is None:
            client.set_terminated(child)

    def _read(self) -> None:
        stored = self._stored()
        if stored is not None and stored.get("setting") != self.setting:
            self._move(stored.get("setting"), aside=True)
            logger.warning("%s was of another comparison: it is now %s", self.table, self._aside(stored.get("setting")))
            stored = None
        if stored is None and self._aside(self.setting).is_file():
            self._move(self.setting, aside=False)
            stored = self._stored()
        if stored is None:
            return
        if stored["tracking_uri"] == masked(self.tracking["tracking_uri"]):
            self.parent = stored["parent_run"]
        for row in stored["points"]:
            estimates = row.pop("figures", None) or row.pop("estimates")  # "figures" until 0.8
            intervals = {name: _interval(estimate) for name, estimate in estimates.items()}
            point = Point(**row, estimates=intervals)
            self.points[point.key] = point

    def _stored(self) -> dict[str, Any] | None:
        return json.loads(self.table.read_text(encoding="utf-8")) if self.table.is_file() else None

    def _aside(self, setting: Any, suffix: str = ".json") -> Path:
        """Where the files of a comparison lie while another one has their place."""
        digits = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:8]
        return self.table.with_suffix(f".{digits}{suffix}")

    def _move(self, setting: Any, aside: bool) -> None:
        for place in (self.table, self.picture):
            other = self._aside(setting, place.suffix)
            source, target = (place, other) if aside else (other, place)
            if source.is_file():
                source.replace(target)

    def _write(self) -> None:
        content = {
            "setting": self.setting,
            "tracking_uri": masked(self.tracking["tracking_uri"]),
            "parent_run": self.parent,
            "points": [_without_nan(asdict(point)) for point in self._sorted()],
            "over_seeds": over_seeds(self._sorted()),
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
        return sorted(
            self.points.values(),
            key=lambda p: (p.method, order.index(p.source), p.line[2], p.fraction, sorted(p.seeds.items())),
        )


def _described(point: Point) -> dict[str, Any]:
    """What a point is, without its estimates."""
    return {key: value for key, value in asdict(point).items() if key != "estimates"}


def _interval(stored: Mapping[str, Any]) -> Interval:
    """An interval that was stored with None in place of NaN."""
    known: dict[str, Any] = {key: math.nan if value is None else value for key, value in stored.items()}
    return Interval(**known)


def _flat(estimates: Mapping[str, Interval]) -> dict[str, float]:
    """Values and bounds by names; a bound is told before the class, whose name may end in anything."""
    flat = {}
    for name, estimate in estimates.items():
        flat[name] = estimate.value
        if estimate.is_known:
            metric, slash, class_name = name.partition("/")
            flat |= {f"{metric}_{end}{slash}{class_name}": getattr(estimate, end) for end in ("low", "high")}
    return flat


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(child) for key, child in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
