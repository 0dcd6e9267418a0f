"""Choices on validation images: how logits become probabilities, and the threshold of each class."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cleft_bundle.data.usable_labels import usable_rows
from cleft_bundle.errors import require_one_of
from cleft_bundle.metrics.predictions import Predictions
from cleft_bundle.metrics.temperature import Calibration, fit_bias, fit_temperature
from cleft_bundle.metrics.thresholds import Rule, check_rule, choose_thresholds
from cleft_bundle.vocabulary import Task

logger = logging.getLogger(__name__)

Method = Literal["none", "temperature", "bias"]

#: So many images with a usable label calibrate; fewer say too little of a temperature.
MIN_IMAGES = 15


def calibration_of(task: Task) -> Method:
    """The calibration of a task where a config names none: ``bias`` for ``multilabel``, else ``temperature``."""
    return "bias" if task == "multilabel" else "temperature"


@dataclass(frozen=True)
class Chosen:
    """Result of :meth:`Screening.choose`.

    Args:
        calibration: turns logits into probabilities.
        thresholds: names of classes to the calibrated score from which on an image is called positive; classes of
            which validation does not have both sides are absent.
    """

    calibration: Calibration
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class Screening:
    """Rules by which calibration and thresholds are chosen.

    Args:
        calibration: ``temperature`` (:func:`fit_temperature`), ``bias`` (:func:`fit_bias`, a temperature and a bias
            for each class) or ``none``. For ``multilabel`` neither changes the ranking within a class; for
            ``multiclass`` biases change which class is the highest.
        rule: ``sensitivity``, ``specificity`` or ``youden``, see
            :func:`cleft_bundle.metrics.thresholds.choose_threshold`.
        target: sensitivity or specificity to reach, in 0..1; None for ``youden``.

    Raises:
        BundleError: an unknown method or rule, or a target that does not fit the rule.
    """

    calibration: Method = "temperature"
    rule: Rule = "sensitivity"
    target: float | None = 0.9

    def __post_init__(self) -> None:
        """Refuse at the start of a run what would fail at its end."""
        require_one_of("calibration", self.calibration, get_args(Method))
        check_rule(self.rule, self.target)

    def choose(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        task: Task,
        patients: Sequence[object] | np.ndarray | None = None,
    ) -> Chosen:
        """Choose calibration and thresholds on validation images.

        Args:
            logits: [N, K], before softmax or sigmoid.
            labels: [N, K] of 1, 0 and NaN (unknown, left out). Where none is known, the log says so and nothing is
                calibrated; nor is it of fewer than :data:`MIN_IMAGES` images, which still give thresholds.
            class_names: names of the K classes.
            task: ``multiclass`` or ``multilabel``.
            patients: [N], whose image each one is, for the temperature's interval; None: each of another patient.

        Raises:
            BundleError: where a logit is not finite.
        """
        calibration = Calibration(1.0, [0.0] * len(class_names), task)
        usable = usable_rows(labels, task)
        if not (labels[usable] == 1).any():
            logger.warning("validation has no known label: nothing is calibrated, and no threshold is chosen")
            return Chosen(calibration, {})
        if self.calibration != "none" and usable.sum() < MIN_IMAGES:
            logger.warning("%d validation images with a usable label are too few to calibrate on (%d are needed): "
                           "probabilities stay as they are", usable.sum(), MIN_IMAGES)  # fmt: skip
        elif self.calibration != "none":
            fit = fit_temperature if self.calibration == "temperature" else fit_bias
            calibration = fit(logits, labels, task, patients)
        places = [str(number) for number in range(len(logits))]
        validation = Predictions(calibration(logits), labels, list(class_names), task, places, places)
        return Chosen(calibration, choose_thresholds(validation, self.rule, self.target))
