"""Labels of images as MONAI Label stores them: one JSON file an image.

Either the ``classification`` form, in which a class that is not named is absent::

    {"classification": "pneumonia"}
    {"classification": ["edema", "pleural effusion"]}
    {"classification": []}

or the form of an answer of this application, corrected: every class once, with 1 where it is present and 0 where it is
absent. Other scores are what a model believes, and no label::

    {"prediction": [{"label": "edema", "score": 1}, {"label": "no finding", "score": 0}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.files import read_object
from cleft_bundle.vocabulary import NO_FINDING, Task

_FORMS = ("classification", "prediction")


def read_label(path: str | Path, class_names: Sequence[str], task: Task) -> tuple[str, ...]:
    """Read the label of one image.

    Args:
        path: the label file.
        class_names: names of the K classes of the model.
        task: ``multiclass`` (exactly one class is present) or ``multilabel`` (any number, but "no finding" only alone).

    Returns:
        the classes that are present, in the order of ``class_names``.

    Raises:
        BundleError: where the file is none of the two forms, or names a class that the model does not have; the message
            names the file.
    """
    content = read_object(path, f"label {path}")
    try:
        return parse_label(content, class_names, task)
    except BundleError as error:
        raise BundleError(f"label {path}: {error}") from error


def parse_label(content: Mapping[str, Any], class_names: Sequence[str], task: Task) -> tuple[str, ...]:
    """Read the content of a label file, see :func:`read_label`.

    Raises:
        BundleError: as there, without the name of the file.
    """
    forms = [form for form in _FORMS if form in content]
    if len(forms) != 1:
        raise BundleError("expected an object with the key 'classification' or 'prediction'")
    named, present = _classification(content) if forms == ["classification"] else _prediction(content)
    for name in named:
        if name not in class_names:
            raise BundleError(f"class '{name}' is unknown{nearest(name, class_names)}; known: {', '.join(class_names)}")
    if doubled := [name for number, name in enumerate(named) if name in named[:number]]:
        raise BundleError(f"class '{doubled[0]}' is named twice")
    if forms == ["prediction"] and (missing := [name for name in class_names if name not in named]):
        raise BundleError(f"key 'prediction': nothing is said of {', '.join(missing)}")
    if task == "multiclass" and len(present) != 1:
        raise BundleError(
            f"exactly one of the classes {', '.join(class_names)} is expected, got {', '.join(present) or 'none'}"
        )
    if NO_FINDING in present and len(present) > 1:
        raise BundleError(f"'{NO_FINDING}' stands beside other classes: {', '.join(present)}")
    return tuple(name for name in class_names if name in present)


def one_hot(present: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """The label of an image as a vector: float32 [K], 1 for each class that is present."""
    return np.array([name in present for name in class_names], dtype=np.float32)


def _classification(content: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The classes that are named, and those of them that are present: all."""
    given = content["classification"]
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BundleError("key 'classification': expected the name of a class, or a list of names")
    return names, names


def _prediction(content: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The classes that are named, and those of them that are present."""
    rows = content["prediction"]
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("label"), str) for row in rows
    ):
        raise BundleError("key 'prediction': expected a list of objects with 'label' and 'score'")
    for row in rows:
        if row.get("score") not in (0, 1):
            raise BundleError(
                f"key 'prediction', '{row['label']}': the score {row.get('score')!r} is no label; expected 1 (present) "
                "or 0 (absent)"
            )
    return [row["label"] for row in rows], [row["label"] for row in rows if row["score"] == 1]
