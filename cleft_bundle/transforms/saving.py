"""Saving radiographs as MONAI's SaveImage does, but so that the reader reads back what was saved."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform, SaveImage
from monai.utils import MetaKeys

from cleft_bundle.data.radiograph_writer import RadiographWriter


class SaveRadiograph(SaveImage):
    """Save an image [1, H, W] of 0..1 as PNG, TIFF, NIfTI or DICOM, with `RadiographWriter`.

    Args:
        output_dir: folder to write to.
        output_postfix: put behind the name of the file that was read.
        output_ext: ".png" (16 bits), ".tif", ".nii", ".nii.gz" or ".dcm"; see `RadiographWriter`.
        resample: bring the image back to the grid that it was read on.
        identity: whose a DICOM file is, see `RadiographWriter`.
        kwargs: further arguments of MONAI's SaveImage, such as `separate_folder` or `folder_layout`.

    Raises:
        BundleError: as `RadiographWriter` does, as it is; MONAI's SaveImage would bury it in a RuntimeError.
    """

    def __init__(
        self,
        output_dir: PathLike = "./",
        output_postfix: str = "trans",
        output_ext: str = ".png",
        *,
        resample: bool = False,
        identity: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(output_dir, output_postfix, output_ext, resample=resample, writer=RadiographWriter, **kwargs)
        self.meta_kwargs["mode"] = kwargs.get("mode", "bilinear")
        self.init_kwargs["identity"] = RadiographWriter(identity=identity).identity

    def __call__(
        self, img: torch.Tensor, meta_data: dict | None = None, filename: str | PathLike | None = None
    ) -> torch.Tensor:
        """Save an image.

        Args:
            img: [1, H, W] in 0..1.
            meta_data: its metadata, where it is no MetaTensor.
            filename: path to write to, without its suffix; without it, MONAI's rules name the file.

        Returns:
            the image.
        """
        meta = img.meta if isinstance(img, MetaTensor) else meta_data
        if filename is None:
            path = self.folder_layout.filename(**self.fname_formatter(meta, self))
        else:
            path = f"{filename}{self.output_ext}"
        writer = RadiographWriter(**self.init_kwargs)
        writer.set_data_array(img, **self.data_kwargs)
        writer.set_metadata(meta, **self.meta_kwargs)
        writer.write(Path(path), **self.write_kwargs)
        self._data_index += 1
        if self.savepath_in_metadict and meta is not None:
            meta[MetaKeys.SAVED_TO] = path
        return img


class SaveRadiographd(MapTransform):
    """Dictionary version of `SaveRadiograph`.

    Args:
        keys: keys of the images.
        allow_missing_keys: as in MONAI.
        kwargs: arguments of `SaveRadiograph`. Of several keys, each needs an `output_postfix` of its own or a
            transform of its own, or one file takes the other's place.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **kwargs: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.saver = SaveRadiograph(**kwargs)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Save the images of an item."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.saver(d[key])
        return d


SaveRadiographD = SaveRadiographDict = SaveRadiographd
