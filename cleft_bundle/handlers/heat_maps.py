"""A heat map over each image that was scored, as PNG and as DICOM secondary capture."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cleft_bundle.data.dicom_results import Model, read_source, save_result, secondary_capture
from cleft_bundle.errors import RadiographError
from cleft_bundle.extras import require
from cleft_bundle.handlers.journal import PredictionJournal
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.networks.heat_maps import Method, finding_directions, pixel_map
from cleft_bundle.overlays import overlay
from cleft_bundle.transforms import OriginalPixels

logger = logging.getLogger(__name__)

_LONGEST_SIDE = 1024  # pixels; a map of patches shows nothing finer


class HeatMapWriter:
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
        self.output_dir = Path(output_dir)
        self.network = network
        self.load, *others = transforms.flatten().transforms
        self.chain = OriginalPixels(others)
        self.model = model
        self.journal = journal
        self.png = png
        self.dicom = dicom
        self.method: Method = method
        self.skipped: Counter[str] = Counter()

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose batches come from :func:`cleft_bundle.data.collate_readable`."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._report)

    def _write(self, engine: Engine) -> None:
        for path, scores in zip(engine.state.batch["path"], engine.state.output["pred"].tolist(), strict=True):
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
        directions = finding_directions(self.network.class_names, self.network.class_weights)
        named = dict(zip(self.network.class_names, scores, strict=True))
        finding = max(directions, key=lambda name: named[name])
        loaded = self.load({"image": file})
        picture = loaded["image"].numpy().reshape(loaded["image"].shape[-2:])
        prepared, trace = self.chain.prepare(loaded)
        image = torch.as_tensor(prepared["image"])[None].to(self.network.class_weights.device)
        heat = self.chain.restore(pixel_map(self.network, image, directions[finding][None], self.method)[0], trace)
        return finding, overlay(picture, heat[0].numpy(), longest_side=_LONGEST_SIDE)

    def _save(self, path: str, picture: np.ndarray, title: str) -> None:
        name = self.journal.name(path)
        if self.png:
            info = PngInfo()
            info.add_text("Title", title)
            target = self.output_dir / "heat_maps" / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(target, pnginfo=info)
        if self.dicom:
            try:
                source = read_source(self.journal.file(path))
            except RadiographError as error:
                self.skipped[str(error)] += 1
                return
            capture = secondary_capture(source, picture, title, self.model)
            save_result(capture, self.output_dir / "secondary_captures" / f"{name}.dcm")

    def _report(self) -> None:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.skipped.most_common())
        logger.info(f"heat maps: {self.output_dir}" + (f"; no secondary capture: {reasons}" if reasons else ""))
        self.skipped.clear()
