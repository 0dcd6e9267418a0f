"""``cleft gallery``: what a preset of transforms makes of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from PIL import Image, ImageDraw

from cleft_bundle.commands.configs import existing
from cleft_bundle.data import list_images
from cleft_bundle.errors import BundleError
from cleft_bundle.transforms.dictionary import ContentCropd

GAP, COLOUR = 4, (255, 210, 0)


def gallery(
    preset: str, *images: str, out: str = "gallery.jpg", size: int = 180, quality: int = 80, seed: int = 0
) -> str:
    """Draw what a preset of transforms makes of radiographs: as read with the crop box, transformed, and augmented.

    cleft gallery configs/transforms_mammography.json FILE_OR_FOLDER... --out gallery.jpg

    Args:
        preset: config file with `deterministic_transforms` and `random_transforms`.
        images: files, and folders whose every file is drawn.
        out: the picture to write; its suffix chooses the format.
        size: side of a tile, and `image_size` of the preset, in pixels.
        quality: of a JPEG, 1 to 95.
        seed: of the augmentation.

    Returns:
        the picture's path; it has a column per image.

    Raises:
        BundleError: there is no such preset, it does not crop, or a file is no image.
    """
    (file,) = existing([preset])
    config = ConfigParser(ConfigParser.load_config_file(file) | {"image_size": size})
    deterministic = config.get_parsed_content("deterministic_transforms")
    augment = Compose(config.get_parsed_content("random_transforms")).set_random_state(seed)
    read, transform = Compose(deterministic[:2]), Compose(deterministic[2:])
    crops = [step.cropper for step in deterministic if isinstance(step, ContentCropd)]
    if not crops or not images:
        raise BundleError(f"gallery: {preset} crops nothing" if images else "gallery: name images or folders to draw")
    columns = []
    for path in images:
        for item in list_images(path) if Path(path).is_dir() else [{"image": path}]:
            before = read(item)
            after = transform(before)
            rows = (
                with_box(before["image"], crops[0].box(before["image"]), size),
                tile(after["image"], size),
                tile(augment(after)["image"], size),
            )
            columns.append(np.concatenate(rows))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(columns, axis=1)).save(out, quality=quality, optimize=True)
    return out


def tile(image: torch.Tensor, size: int) -> np.ndarray:
    """A grey image [1, h, w] of 0..1 as colours with a gap around it, uint8 [size + GAP, size + GAP, 3]."""
    grey = (image[0].clamp(0, 1) * 255).to(torch.uint8).numpy()
    framed = np.full((size + GAP, size + GAP, 3), 64, np.uint8)
    framed[: grey.shape[0], : grey.shape[1]] = grey[..., None]
    return framed


def with_box(image: torch.Tensor, box: tuple[slice, slice], size: int) -> np.ndarray:
    """The image as it was read, shrunk to a tile, with the crop box drawn in."""
    scale = size / max(image.shape[1:])
    height, width = (max(1, round(side * scale)) for side in image.shape[1:])
    framed = Image.fromarray(tile(torch.nn.functional.interpolate(image[None], (height, width), mode="area")[0], size))
    rows, columns = box
    corners = [columns.start * scale, rows.start * scale, columns.stop * scale - 1, rows.stop * scale - 1]
    ImageDraw.Draw(framed).rectangle(corners, outline=COLOUR)
    return np.asarray(framed)
