"""Inference tasks."""

from __future__ import annotations

from monailabel.interfaces.tasks.infer_v2 import InferTask

from ..model import ServedModel
from ..settings import Settings
from .classifier import ClassifierTask
from .prompt import PromptTask


def infers(model: ServedModel, settings: Settings) -> dict[str, InferTask]:
    """All tasks by name; ``cleft_prompt`` is among them where there is a ``cleft.pt`` to score prompts by."""
    tasks: dict[str, InferTask] = {"cleft_classifier": ClassifierTask(model, settings.task_type)}
    if settings.cleft:
        tasks["cleft_prompt"] = PromptTask(model, settings)
    return tasks
