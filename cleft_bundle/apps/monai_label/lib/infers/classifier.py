"""Inference with the fixed classes of ``model.pt``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model import Loaded, ServedModel
from .scoring import ScoringTask, heat_map_options


class ClassifierTask(ScoringTask):
    """Score an image with the served classifier.

    Args:
        model: what is served.
        task_type: see :class:`ScoringTask`.
    """

    def __init__(self, model: ServedModel, task_type: str) -> None:
        super().__init__(task_type, "Scores of the classes that the classifier was built for")
        self.model = model

    def scorer(self, request: Mapping[str, Any]) -> Loaded:
        """The classifier as its file is now."""
        return self.model.current()

    def info(self) -> dict[str, Any]:
        """Classes and options as they are now, for clients."""
        names = self.model.class_names
        config = {"heat_map": heat_map_options(names)}
        return {**super().info(), "labels": {name: number for number, name in enumerate(names)}, "config": config}

    def get_path(self, validate: bool = True) -> str:
        """The file of the classifier, whose checksum MONAI Label reports."""
        return str(self.model.path)
