"""Requests that are wrong, as an HTTP answer with the reason; MONAI Label would answer 500 without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.utils.async_tasks import task as async_task
from monailabel.utils.async_tasks.utils import tasks

from cleft_bundle.errors import BundleError


@contextmanager
def refusals() -> Iterator[None]:
    """Answer 400 for a BundleError, 404 for what the datastore does not have, and 400 for MONAI Label's own errors."""
    try:
        yield
    except BundleError as error:
        raise HTTPException(400, str(error)) from error
    except (ImageNotFoundException, LabelNotFoundException) as error:
        raise HTTPException(404, error.msg) from error
    except MONAILabelException as error:
        raise HTTPException(400, error.msg) from error


def under_way(method: str) -> dict[str, Any]:
    """Tasks of a method (``train``, ``scoring``) that wait to start or run, by their ids."""
    return {task["id"]: task for task in tasks(method) if task["status"] in ("SUBMITTED", "RUNNING")}


def refuse_second_tasks() -> None:
    """Have the server answer 429 to a task while one of the same method waits to start or runs.

    MONAI Label 0.8.5 looks for a running process, and takes a second task before that of the first has started.
    """
    async_task.processes = under_way
