"""Scores of images in one call: ``cleft_bundle.predict``."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cleft_bundle import __version__
from cleft_bundle.checkpoints import open_classifier, sha256
from cleft_bundle.checkpoints.text_bank import VOCABULARY
from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.files import file_stamp
from cleft_bundle.inference.given_images import GivenImage, as_files, given_images
from cleft_bundle.inference.heat_maps import HeatMaps
from cleft_bundle.inference.own_words import MODEL, OwnWords
from cleft_bundle.inference.predictions import FIXED
from cleft_bundle.inference.scorer import Scorer
from cleft_bundle.names import column, plain_name
from cleft_bundle.networks import DeployedClassifier, ExportedClassifier, ZeroShotClassifier

MODEL_FILE, CHECKPOINT = "model.pt", "cleft.pt"
_FIXED = (*FIXED, "possible")
_MOST = 4  # predictors that are kept, of which each has a tower in memory
_kept: OrderedDict[str, Predictor] = OrderedDict()


@dataclass(frozen=True)
class Prediction:
    """Result of :func:`predict` for N images; nothing in it comes from a header.

    Args:
        scores: N rows, by the images' names (paths as they were given): a column per finding with its probability, NaN
            where an image could not be read; ``possible``, the findings of the conformal set, which cannot be ruled
            out, where the classifier has one; ``positive``, the findings that reach their threshold, None where none
            has one; ``typicality`` and ``unusual``, see :class:`cleft_bundle.inference.Scores`, where the classifier
            knows; and ``error``, why an image has no scores, else "".
        warnings: what is to be known of the scores, a sentence each.
        provenance: what made them: ``version``, ``model`` (SHA-256), ``run``, ``task``, ``calibrated`` (the findings
            whose scores are) and ``words``, of each finding where its text was embedded: ``model``, ``vocabulary``,
            ``cache`` or ``language model``.
    """

    scores: pd.DataFrame
    warnings: list[str]
    provenance: dict[str, Any]
    _images: list[GivenImage] = field(repr=False)
    _networks: Mapping[str, DeployedClassifier | ExportedClassifier] = field(repr=False)
    _scorer: Scorer = field(repr=False)

    @property
    def findings(self) -> list[str]:
        """The findings that were asked for."""
        return list(self._networks)

    def heat_map(self, finding: str, image: int | str = 0) -> np.ndarray:
        """Map onto an image what speaks for a finding; it is computed when it is asked for.

        Args:
            finding: one of :attr:`findings`.
            image: its number, from 0, or its name.

        Returns:
            float [H, W] over the pixels of the file, in :data:`cleft_bundle.networks.heat_maps.UNIT`.

        Raises:
            BundleError: an unknown finding or image, one that cannot be read, or a classifier in an exported file.
        """
        maps = HeatMaps(self._network(finding), self._scorer.transforms)
        with as_files([self._readable(image)]) as (file,), torch.no_grad():
            return maps(maps.load({"image": file}), [finding])[0].numpy()

    def image(self, image: int | str = 0) -> np.ndarray:
        """An image as the reader shows it, float [H, W] in 0..1, bright is dense; its number or name as above."""
        load = self._scorer.transforms.flatten().transforms[0]
        with as_files([self._readable(image)]) as (file,):
            return np.asarray(load({"image": file})["image"]).squeeze()

    def _network(self, finding: str) -> DeployedClassifier:
        if finding not in self._networks:
            raise BundleError(f"heat map: {finding!r} is none of {', '.join(self.findings)}")
        network = self._networks[finding]
        if isinstance(network, ExportedClassifier):
            raise BundleError("heat map: an exported classifier has none: they need its model.pt or finetuned.pt")
        return network

    def _readable(self, image: int | str) -> GivenImage:
        names = [given.name for given in self._images]
        number = names.index(image) if image in names else image
        if not isinstance(number, int) or not -len(names) <= number < len(names):
            raise BundleError(f"heat map: {image!r} is none of the {len(names)} images")
        if error := self.scores["error"].iloc[number]:
            raise BundleError(f"heat map: {names[number]}: {error}")
        return self._images[number]


class Predictor:
    """A classifier that was loaded once, for any number of :meth:`predict`.

    Args:
        model: a ``model.pt`` or another file of :func:`cleft_bundle.checkpoints.open_classifier`, or a folder that
            holds ``model.pt``, itself or in its folder ``models``.
        checkpoint: the trained network, for words that are no classes; None: ``cleft.pt`` beside the model.
        config_file: the training's config and its overlays, for words that nothing knows yet; empty: ``train.json``.
        override: values of the config, such as ``image_backbone``.
        template: turns a finding into a prompt, by its slot ``{class}``; None: that of the training.
        device: where it computes.
        batch_size: images at a time.
        num_workers: processes that read images.

    Raises:
        BundleError: where there is no such classifier, or the template has no slot.
    """

    def __init__(
        self,
        model: str | Path = "models/model.pt",
        checkpoint: str | Path | None = None,
        config_file: Sequence[str] = (),
        override: Mapping[str, Any] | None = None,
        template: str | None = None,
        device: str = "cpu",
        batch_size: int = 8,
        num_workers: int = 0,
    ) -> None:
        path = model_file(model)
        self.scorer = Scorer(open_classifier(path), device, batch_size, num_workers)
        self.digest = sha256(path)
        self.words: OwnWords | None = None
        network = self.scorer.network
        if isinstance(network, ZeroShotClassifier):
            trained = Path(checkpoint) if checkpoint is not None else path.with_name(CHECKPOINT)
            self.words = OwnWords(network, path.parent, trained, config_file, override or {}, template)

    def predict(self, images: Any, find: str | Sequence[str] | None = None, progress: str | None = None) -> Prediction:
        """Score images.

        Args:
            images: see :func:`cleft_bundle.inference.given_images.given_images`.
            find: findings in one's own words; None: the classes of the model. Names of classes, whatever their case,
                have the model's calibrated scores; others are scored against "no finding".
            progress: what a progress bar is to say; None shows none.

        Raises:
            BundleError: no image, an empty finding, or a word that needs what is not there; says what.
        """
        given = given_images(images)
        findings, own = self._divide(find)
        network, source = self._own(own)
        with as_files(given) as files, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = self.scorer.score(({"image": file} for file in files), embeddings=bool(own), progress=progress)
            errors = [
                error.replace(file, image.name) for error, file, image in zip(found.errors, files, given, strict=True)
            ]
            notes = list(dict.fromkeys(str(one.message) for one in told if one.category is UserWarning))
            for number, image in enumerate(given):
                notes = [note.replace(f"{number}: ", f"{image.name}: ", 1) if image.write else note for note in notes]
        columns = dict(zip(self.scorer.class_names, found.scores.T, strict=True))
        if network is not None:
            scores = dict(zip(network.class_names, _classify(network, found.embeddings).T, strict=True))
            columns |= {name: scores[name] for name in own}  # its "no finding" is not the model's
        table = pd.DataFrame(
            {column(name, _FIXED): columns[name] for name in findings}, index=[one.name for one in given]
        )
        limits = self.scorer.operating_point.get("conformal", {}).get("limits", {})
        sets = {name: limits[name] for name in findings if name in limits and name not in own}
        if sets:
            possible = self._reaching(columns, sets, errors)
            table["possible"] = pd.Series(possible, index=table.index, dtype=object)
        positive = self._positive(columns, [name for name in findings if name not in own], errors)
        table["positive"] = pd.Series(positive, index=table.index, dtype=object)
        if found.unusual is not None:
            unusual = [None if error else bool(one) for one, error in zip(found.unusual, errors, strict=True)]
            table["typicality"], table["unusual"] = found.typicality, pd.Series(unusual, table.index, object)
        table["error"] = errors
        calibrated = [] if self.scorer.calibration is None else [name for name in findings if name not in own]
        about = {
            "version": __version__,
            "model": self.digest,
            "run": self.scorer.provenance.get("run", {}),
            "task": self.scorer.task,
            "calibrated": calibrated,
            "words": {name: source if name in own else MODEL for name in findings},
        }
        networks = {name: network if network is not None and name in own else self.scorer.network for name in findings}
        return Prediction(
            table, notes + self._warnings(findings, calibrated, found.unusual), about, given, networks, self.scorer
        )

    def _divide(self, find: str | Sequence[str] | None) -> tuple[list[str], list[str]]:
        """Findings that are asked for, in their order, and those of them that are no classes of the model."""
        if find is None:
            return self.scorer.class_names, []
        asked = [find] if isinstance(find, str) else list(find)
        if not asked or not all(isinstance(name, str) and name.strip() for name in asked):
            raise BundleError(f"find: names of findings are expected, such as 'pleural effusion', got {find!r}")
        known = {plain_name(name): name for name in self.scorer.class_names}
        findings = [known.setdefault(plain_name(name), " ".join(name.split())) for name in asked]
        findings = list(dict.fromkeys(findings))
        return findings, [name for name in findings if name not in self.scorer.class_names]

    def _own(self, own: Sequence[str]) -> tuple[ZeroShotClassifier | None, str]:
        if not own:
            return None, MODEL
        if self.words is None:
            raise BundleError(
                f"find: {own[0]!r} is no class of the model{nearest(own[0], self.scorer.class_names)}, which are "
                f"{', '.join(self.scorer.class_names)}: own words need a model.pt, and this file is another kind"
            )
        return self.words.classify(own)

    def _positive(
        self, columns: Mapping[str, np.ndarray], names: Sequence[str], errors: Sequence[str]
    ) -> list[list[str] | None]:
        limits = {name: least for name, least in (self.scorer.thresholds or {}).items() if name in names}
        return self._reaching(columns, limits, errors)

    def _reaching(
        self, columns: Mapping[str, np.ndarray], limits: Mapping[str, float], errors: Sequence[str]
    ) -> list[list[str] | None]:
        return [
            [name for name, least in limits.items() if columns[name][row] >= least] if limits and not error else None
            for row, error in enumerate(errors)
        ]

    def _warnings(self, findings: Sequence[str], calibrated: Sequence[str], unusual: np.ndarray | None) -> list[str]:
        told = []
        if unusual is None:
            told.append("whether an image is of the kind that the model was validated on is not known")
        elif unusual.any():
            told.append(f"{unusual.sum()} of {len(unusual)} images are unlike those that the model was validated on")
        if plain := [name for name in findings if name not in calibrated]:
            told.append(f"not calibrated, so no probabilities to rely on: {', '.join(plain)}")
        return told


def model_file(model: str | Path) -> Path:
    """The file of a classifier that a path or a folder names.

    Raises:
        BundleError: where a folder holds no ``model.pt``.
    """
    path = Path(model).expanduser()
    if not path.is_dir():
        return path
    for file in (path / MODEL_FILE, path / "models" / MODEL_FILE):
        if file.is_file():
            return file
    raise BundleError(f"model: the folder {model} holds no {MODEL_FILE}, nor does its folder models")


def predict(
    images: Any,
    find: str | Sequence[str] | None = None,
    model: str | Path = "models/model.pt",
    **options: Any,
) -> Prediction:
    """Score images for findings, by a classifier that is loaded once and kept as long as its file stays as it is.

    Args:
        images: path of a file or a folder, a pydicom dataset, an array [H, W], or a list of them.
        find: findings in one's own words; None: the classes of the model.
        model: path of ``model.pt``, or of a folder that holds it.
        options: further arguments of :class:`Predictor`.

    Returns:
        scores, warnings and provenance; :meth:`Prediction.heat_map` draws findings onto the pixels of a file.

    Raises:
        BundleError: as :class:`Predictor` and :meth:`Predictor.predict`.
    """
    path = model_file(model)
    stamps = [file_stamp(file, inode=True) for file in (path, path.with_name(CHECKPOINT), path.with_name(VOCABULARY))]
    key = repr((str(path.absolute()), stamps, sorted(options.items())))
    if key not in _kept:
        _kept[key] = Predictor(path, **options)
        if len(_kept) > _MOST:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key].predict(images, find)


def _classify(network: ZeroShotClassifier, embeddings: np.ndarray | None) -> np.ndarray:
    """Scores [N, K] of embeddings [N, D]; NaN where there is none."""
    if embeddings is None or embeddings.shape[1] == 0:
        return np.full((0 if embeddings is None else len(embeddings), len(network.class_names)), np.nan)
    with torch.no_grad():
        rows = torch.from_numpy(embeddings).to(network.bias.device)
        return network.calibrated(network.raw_logits(rows).cpu().double()).numpy()
