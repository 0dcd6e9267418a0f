"""Heat maps over each image that was scored, as PNG and as DICOM secondary capture."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.transforms import Compose
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import Dataset

from cleft_bundle.data.dicom.results import ResultSource, save_result, secondary_capture
from cleft_bundle.extras import require
from cleft_bundle.files import replacing
from cleft_bundle.inference.dicom_writer import DicomResultWriter
from cleft_bundle.inference.heat_maps import CALLED, HeatMaps
from cleft_bundle.inference.heat_overlay import captioned, heat_overlay
from cleft_bundle.inference.journal import PredictionJournal
from cleft_bundle.networks import DeployedClassifier
from cleft_bundle.networks.heat_maps import SCALE, UNIT, Method

logger = logging.getLogger(__name__)

_LONGEST_SIDE = 1024  # pixels; a map of patches shows nothing finer
_SLUG = 40  # characters of a class's name in a file's name
_TITLE = 600  # characters of it in DICOM's description, which holds 1024
_VISIBLE = 0.05  # of the scale; a weaker colour cannot be told from the radiograph
_PNG, _DICOM = "heat_maps", "secondary_captures"
_SAID = ("Score", "Threshold", "Call", "Strongest", "Scale", "Method")  # of the texts, in DICOM's description


class HeatMapWriter(DicomResultWriter):
    """Draw over each image what speaks for the findings that are called in it.

    The files are ``<name>_<number>_<finding>.png`` and ``.dcm``: number is the finding's place among the classes, from
    1, and of its name stay letters of ASCII and digits. What the map is of, score and threshold stand under the picture
    and in the metadata. Secondary captures are written of DICOM images only.

    Args:
        output_dir: receives the folders ``heat_maps`` and ``secondary_captures``.
        network: the classifier.
        transforms: those that prepare its images, the reader first.
        model: what makes the scores.
        journal: knows the images' files and names.
        png: write PNG files.
        dicom: write secondary captures.
        method: of :func:`cleft_bundle.networks.heat_maps.heat_map`.
        findings: ``called``; ``all``, called or not; or names of classes, see
            :meth:`cleft_bundle.inference.HeatMaps.wanted`.
        scale: the value of the strongest colour, for all maps; None: :data:`cleft_bundle.networks.heat_maps.SCALE`.

    Raises:
        BundleError: where findings are none of the classes, the classifier is in a form of which there are no maps, or
            secondary captures are asked for and highdicom is not installed.
    """

    what = "heat maps"
    lacking = "no secondary capture"

    def __init__(
        self,
        output_dir: str,
        network: DeployedClassifier,
        transforms: Compose,
        model: ResultSource,
        journal: PredictionJournal,
        png: bool = True,
        dicom: bool = False,
        method: Method = "attention",
        findings: str | Sequence[str] = CALLED,
        scale: float | None = None,
    ) -> None:
        if dicom:
            require("highdicom", "sr")
        super().__init__(output_dir, model, journal)
        self.network = network
        self.maps = HeatMaps(network, transforms, method)
        self.maps.wanted(findings, dict.fromkeys(network.class_names, 0.0))  # refuses unknown names
        self.findings = findings
        self.scale = SCALE if scale is None else scale
        self.png = png
        self.dicom = dicom
        self._drawn = self._without = 0
        self._older: defaultdict[str, list[Path]] = defaultdict(list)

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator; see :meth:`DicomResultWriter.attach`."""
        engine.add_event_handler(Events.STARTED, self._find_older)
        super().attach(engine)

    def write(self, path: str, scores: list[float], typicality: float | None = None) -> None:
        """Draw and save the maps of one image; see :meth:`DicomResultWriter.write`."""
        named = dict(zip(self.network.class_names, scores, strict=True))
        names = self.maps.wanted(self.findings, named)
        stem = self.journal.name(path)
        for older in self._older.pop(stem, []):
            older.unlink(missing_ok=True)
        self._drawn += len(names)
        self._without += not names
        source = self.source(path) if self.dicom and names else None
        if names and (self.png or source is not None):
            for finding, picture, texts in self.draw(self.journal.file(path), names, named):
                self._save(stem, source, finding, picture, texts)

    def draw(
        self, file: str, names: Sequence[str], scores: Mapping[str, float]
    ) -> list[tuple[str, np.ndarray, dict[str, str]]]:
        """Draw the heat maps of one image.

        Args:
            file: the image.
            names: of the classes.
            scores: by name of class.

        Returns:
            of each class its name, its heat map over the image with a caption, uint8 [H, W, 3], and what goes into the
            picture's metadata, by keyword.
        """
        loaded = self.maps.load({"image": file})
        image = loaded["image"].numpy().reshape(loaded["image"].shape[-2:])
        drawn = []
        for name, heat in zip(names, self.maps(loaded, names).numpy(), strict=True):
            verdict = self.maps.verdict(name, scores)
            strongest = max(float(heat.max()), 0.0)
            texts = {
                "Title": f"heat map of {name}",
                "Finding": name,
                **verdict.texts,
                "Strongest": f"{strongest:.2g} {UNIT}",
                "Scale": f"0 to {self.scale:.3g} {UNIT}",
                "Method": self.maps.method,
                "Software": f"cleft_bundle {self.model.version}",
                "Model": f"SHA-256 {self.model.sha256}",
            }
            below = "" if strongest >= _VISIBLE * self.scale else ": nothing stands out on this scale"
            plain = heat_overlay(image, heat, self.scale, longest_side=_LONGEST_SIDE)
            lines = [verdict.sentence, f"strongest {strongest:.2g}{below}"]
            drawn.append((name, captioned(plain, name, lines, self.scale), texts))
        return drawn

    def _save(
        self, stem: str, source: Dataset | None, finding: str, picture: np.ndarray, texts: Mapping[str, str]
    ) -> None:
        place = self.network.class_names.index(finding) + 1
        name = f"{stem}_{place}{_slug(finding)}"
        if self.png:
            info = PngInfo()
            for key, text in texts.items():
                info.add_text(key, text)
            with replacing(self.output_dir / _PNG / f"{name}.png") as temporary:
                Image.fromarray(picture).save(temporary, format="PNG", pnginfo=info)
        if source is not None:
            said = [_dicom_text(texts["Title"]), *(f"{key.lower()} {texts[key]}" for key in _SAID if key in texts)]
            capture = secondary_capture(source, picture, "; ".join(said), self.model)
            capture.SeriesDescription = "cleft_bundle: heat maps"
            capture.InstanceNumber = place
            save_result(capture, self.output_dir / _DICOM / f"{name}.dcm")

    def _find_older(self) -> None:
        """Note the maps of earlier runs, which go when their image is scored anew."""
        for folder in (_PNG, _DICOM):
            for path in (self.output_dir / folder).glob("*.*"):
                self._older[re.split("[_.]", path.name)[0]].append(path)

    def _report(self) -> None:
        why = "no finding is called"
        if not self.maps.decides:
            why = "the classifier has no thresholds; --heat_map_findings names findings, or all"
        none = f"; {self._without} images have none: {why}" if self._without else ""
        logger.info(f"{self.what}: {self._drawn} drawn{none}")
        self._drawn = self._without = 0
        super()._report()


def _slug(name: str) -> str:
    """What a file's name says of a class: letters of ASCII and digits, each gap one ``_``, and one before them."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    return f"_{'_'.join(words)}"[: _SLUG + 1].rstrip("_")


def _dicom_text(title: str) -> str:
    r"""A title without control characters and ``\``, which DICOM has for other things; of a long one the beginning."""
    return re.sub(r"[\\\x00-\x1f\x7f]", " ", title if len(title) <= _TITLE else f"{title[:_TITLE]}…")
