"""A heat map over each image that was scored, as PNG and as DICOM secondary capture."""

from __future__ import annotations

import numpy as np
from monai.transforms import Compose
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cleft_bundle.data.dicom_results import Model, save_result, secondary_capture
from cleft_bundle.extras import require
from cleft_bundle.handlers.dicom_results import DicomResultWriter
from cleft_bundle.handlers.journal import PredictionJournal
from cleft_bundle.inferers import HeatMaps
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.networks.heat_maps import Method
from cleft_bundle.overlays import overlay

_LONGEST_SIDE = 1024  # pixels; a map of patches shows nothing finer


class HeatMapWriter(DicomResultWriter):
    """Draw what speaks for the finding with the highest score over the image: ``<name>.png``, ``<name>.dcm``.

    Both say in their metadata which finding it is. Secondary captures are written of DICOM images only.

    Args:
        output_dir: receives the folders ``heat_maps`` and ``secondary_captures``.
        network: the classifier.
        transforms: those that prepare its images, the reader first.
        model: what makes the scores.
        journal: knows the images' files and names.
        png: write PNG files.
        dicom: write secondary captures.
        method: of :func:`cleft_bundle.networks.heat_maps.heat_map`.

    Raises:
        BundleError: where secondary captures are asked for and highdicom is not installed.
    """

    what = "heat maps"
    lacking = "no secondary capture"

    def __init__(
        self,
        output_dir: str,
        network: ZeroShotClassifier,
        transforms: Compose,
        model: Model,
        journal: PredictionJournal,
        png: bool = True,
        dicom: bool = False,
        method: Method = "attention",
    ) -> None:
        if dicom:
            require("highdicom", "sr")
        super().__init__(output_dir, model, journal)
        self.network = network
        self.maps = HeatMaps(network, transforms, method)
        self.png = png
        self.dicom = dicom

    def write(self, path: str, scores: list[float]) -> None:
        """Draw and save the map of one image; see :meth:`DicomResultWriter.write`."""
        finding, picture = self.draw(self.journal.file(path), scores)
        self._save(path, picture, f"heat map of {finding}")

    def draw(self, file: str, scores: list[float]) -> tuple[str, np.ndarray]:
        """Draw one heat map.

        Args:
            file: the image.
            scores: K of them.

        Returns:
            name of the finding with the highest score, and its heat map over the image, uint8 [H, W, 3].
        """
        named = dict(zip(self.network.class_names, scores, strict=True))
        finding = max(self.maps.directions, key=lambda name: named[name])
        loaded = self.maps.load({"image": file})
        picture = loaded["image"].numpy().reshape(loaded["image"].shape[-2:])
        return finding, overlay(picture, self.maps(loaded, finding).numpy(), longest_side=_LONGEST_SIDE)

    def _save(self, path: str, picture: np.ndarray, title: str) -> None:
        name = self.journal.name(path)
        if self.png:
            info = PngInfo()
            info.add_text("Title", title)
            target = self.output_dir / "heat_maps" / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(target, pnginfo=info)
        if self.dicom and (source := self.source(path)) is not None:
            capture = secondary_capture(source, picture, title, self.model)
            save_result(capture, self.output_dir / "secondary_captures" / f"{name}.dcm")
