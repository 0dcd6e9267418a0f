"""Inference with classes that are typed into the request."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ..model import Loaded, ServedModel
from ..prompts import PromptClassifiers, read_classes
from ..settings import Settings
from .scoring import OPTIONS, ScoringTask


class PromptTask(ScoringTask):
    """Score an image with classes of the request, zero-shot, with the language model of ``cleft.pt``.

    The request has ``classes``, see :func:`lib.prompts.read_classes`, and may have ``task``, ``multilabel`` (the
    default) or ``multiclass``, and ``template``.

    Args:
        model: what is served.
        settings: where the network is.
    """

    def __init__(self, model: ServedModel, settings: Settings) -> None:
        super().__init__(settings.task_type, "Scores of classes in your own words")
        self.model = model
        self.settings = settings
        self._lock = threading.Lock()
        self._classifiers: PromptClassifiers | None = None

    def load(self) -> PromptClassifiers:
        """Load the network where that has not been done; tasks in processes of their own never need it.

        Raises:
            BundleError: where ``cleft.pt`` does not fit the network of the configs.
        """
        with self._lock:
            if self._classifiers is None:
                self._classifiers = PromptClassifiers(self.model, self.settings)
            return self._classifiers

    def scorer(self, request: Mapping[str, Any]) -> Loaded:
        """A classifier of the classes of a request, whose embeddings are computed once."""
        template = request.get("template", self.settings.template)
        task = request.get("task", "multilabel")
        task = task[0] if isinstance(task, list) else task  # the options of a viewer that were left as they are
        return self.load().classifier(read_classes(request.get("classes"), template), task)

    def info(self) -> dict[str, Any]:
        """Options for clients, with the served classes as an example."""
        config = {
            "classes": "|".join(self.model.class_names),
            "task": ["multilabel", "multiclass"],
            "heat_map": [*OPTIONS],
        }
        return {**super().info(), "config": config}
