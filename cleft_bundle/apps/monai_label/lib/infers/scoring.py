"""The common part of both inference tasks: from a request to scores, Markups and heat maps."""

from __future__ import annotations

import logging
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.transform.writer import write_itk

from cleft_bundle.data.images.file_trees import walk
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.inference import HeatMaps
from cleft_bundle.names import column
from cleft_bundle.networks.classifiers.typicality import UNUSUAL_BELOW
from cleft_bundle.vocabulary import NO_FINDING

from ..model import Loaded
from ..results import heat_levels, level_names, note, patient_affine, prediction, write_markups

logger = logging.getLogger(__name__)

NONE, HIGHEST = OPTIONS = ("none", "highest")
_EXTENSIONS = (".nrrd", ".nii", ".nii.gz", ".mha")


class ScoringTask(InferTask):
    """Score one image of the datastore.

    The answer is JSON and a file. The JSON has ``prediction``, a list of ``idx``, ``label`` and ``score`` for each
    class, ``positive``, the classes that reach their threshold (None where the classifier has none), ``typicality`` and
    ``unusual``, see :class:`cleft_bundle.inference.Scores` (None where the classifier does not know), ``task``, and
    ``model``, the SHA-256 of the file that scored. The file is the scores as Markups, or, where the request's
    ``heat_map`` names a class or is ``highest``, the finding of the highest score among those that are called, a label
    image of its heat map, with nothing in it where no finding is called. The JSON then has ``heat_map``, the class or
    None, and ``heat_map_note``, what is to be known of it.

    Args:
        task_type: as what the task is announced, ``classification``; 3D Slicer's module lists ``detection`` only.
        description: for people.
    """

    def __init__(self, task_type: str, description: str) -> None:
        super().__init__(type=task_type, labels=[], dimension=2, description=description)

    @abstractmethod
    def scorer(self, request: Mapping[str, Any]) -> Loaded:
        """The classifier that a request is answered by.

        Raises:
            BundleError: where the request does not say what it has to.
        """

    def is_valid(self) -> bool:
        """A task that was built is ready."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Answer a request.

        Args:
            request: ``image``, a file or a folder that holds one; ``heat_map``; ``result_write_to_file``, which is
                false where no file is wanted; ``result_extension`` of a heat map, ``.nrrd`` where it is absent.

        Returns:
            path of the file, which the caller removes, or None; and the JSON.

        Raises:
            BundleError: an image that cannot be read, or a request that cannot be answered.
        """
        start = time.monotonic()
        loaded = self.scorer(request)
        maps = HeatMaps(loaded.classifier, loaded.scorer.transforms)
        path = _one_image(Path(request["image"]))
        scores, typicality = _score(loaded, path)
        result: dict[str, Any] = {
            "prediction": prediction(scores),
            "positive": _positive(loaded, scores),
            "typicality": typicality,
            "unusual": None if typicality is None else typicality < UNUSUAL_BELOW,
            "task": loaded.classifier.task,
            "model": loaded.digest,
            "label_names": {name: number for number, name in enumerate(scores)},
        }
        file = None
        if request.get("result_write_to_file", True):
            asked = _asked(request, maps)
            file, names = _write(request, path, scores, asked, maps)
            result |= names
        result["latencies"] = {"total": round(time.monotonic() - start, 3)}
        return file, result


def _one_image(path: Path) -> Path:
    """The file itself, or the only one of a folder: a series of a PACS, or an uploaded session."""
    if not path.is_dir():
        return path
    files = list(walk(path).once().files)
    if len(files) != 1:
        raise BundleError(f"the series holds {len(files)} images, and one is scored at a time")
    return path / files[0]


def _score(loaded: Loaded, path: Path) -> tuple[dict[str, float], float | None]:
    """The scores by name of class, and the image's typicality where the classifier knows it."""
    found = loaded.scorer.score([{"image": path}])
    if found.errors[0]:
        raise BundleError(found.errors[0])
    typicality = None if found.typicality is None else float(found.typicality[0])
    return dict(zip(loaded.scorer.class_names, found.scores[0].tolist(), strict=True)), typicality


def _positive(loaded: Loaded, scores: Mapping[str, float]) -> list[str] | None:
    thresholds = loaded.scorer.thresholds
    return None if thresholds is None else [name for name, least in thresholds.items() if scores[name] >= least]


def heat_map_options(class_names: Sequence[str]) -> list[str]:
    """The values of a request's ``heat_map``; a class called like one of the others has ``class:`` before it."""
    return [*OPTIONS, *(column(name, OPTIONS) for name in class_names if name != NO_FINDING)]


def _asked(request: Mapping[str, Any], maps: HeatMaps) -> str:
    """What the request says of a heat map."""
    given = request.get("heat_map", NONE)
    given = given[0] if isinstance(given, list) else given  # the options of a viewer that were left as they are
    require_one_of("heat_map", given, heat_map_options(maps.network.class_names))
    return given


def _write(
    request: Mapping[str, Any],
    path: Path,
    scores: Mapping[str, float],
    asked: str,
    maps: HeatMaps,
) -> tuple[str, dict[str, Any]]:
    """Write the file of an answer, and say what goes with it into the JSON."""
    original = maps.load({"image": str(path)})
    image = original["image"]
    affine = patient_affine(path, np.asarray(image.meta["original_spacing"]))
    if asked == NONE:
        file = _temporary(".json")
        write_markups(file, scores, tuple(image.shape[-2:]), affine)
        return file, {}
    extension = request.get("result_extension") or _EXTENSIONS[0]
    require_one_of("result_extension", extension, _EXTENSIONS)
    called = maps.called(scores)
    named = {column(name, OPTIONS): name for name in scores}.get(asked) if asked != HIGHEST else None
    finding = max(called, key=lambda name: scores[name], default=None) if asked == HIGHEST else named
    heat = np.zeros(image.shape[-2:]) if finding is None else maps(original, [finding])[0].numpy()
    file = _temporary(extension)
    write_itk(heat_levels(heat).T[:, :, None], file, affine, np.uint8, True)
    names = {} if finding is None else level_names(finding)
    return file, {"heat_map": finding, "heat_map_note": note(finding, scores, maps), "label_names": names}


def _temporary(suffix: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=suffix, prefix="cleft_", delete=False) as file:
        return file.name
