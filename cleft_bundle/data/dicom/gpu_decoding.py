"""Decoding on a GPU by NVIDIA's nvImageCodec, where there are it, CuPy, CUDA and pydicom 3 (extra `gpu`).

MONAI's own reader for it registers the library's plug-in with pydicom; here the plug-in is one more named decoder,
asked first and checked once: the first frame of each format is decoded on the CPU too, and where the two differ, the
GPU is not asked again for that format.
"""

from __future__ import annotations

import logging
import multiprocessing
from functools import cache
from typing import Any

import numpy as np
from monai.utils import optional_import
from pydicom.dataset import Dataset
from pydicom.uid import UID

logger = logging.getLogger(__name__)

NAME = "nvimgcodec"
# Without JPEG lossless: nvJPEG before CUDA 13.2 is known to decode it wrongly
_FORMATS = {f"1.2.840.10008.1.2.4.{n}": tolerance for n, tolerance in ((90, 0), (201, 0), (202, 0))} | {
    f"1.2.840.10008.1.2.4.{n}": 1 for n in (50, 91, 203)
}
_trusted: dict[str, bool] = {}
get_decoder, HAS_DECODERS = optional_import("pydicom.pixels", name="get_decoder")


def decoders(plain: Dataset) -> tuple[str, ...]:
    """`(NAME,)` where a frame can go to the GPU, else nothing.

    Args:
        plain: a grey frame, described as it describes itself.
    """
    syntax = str(plain.file_meta.TransferSyntaxUID)
    fits = plain.SamplesPerPixel == 1 and syntax in _FORMATS and _trusted.get(syntax, True)
    return (NAME,) if fits and available() else ()


def available() -> bool:
    """True where nvImageCodec can be used in this process; it is then registered with pydicom.

    A forked process, such as a DataLoader's worker on Linux, cannot use a GPU that its parent may use.
    """
    forked = multiprocessing.parent_process() is not None and multiprocessing.get_start_method() == "fork"
    return not forked and _registered()


@cache
def _registered() -> bool:
    there, found = optional_import("monai.data.nvimgcodec_pydicom_plugin", name="is_nvimgcodec_available")
    register, _ = optional_import("monai.data.nvimgcodec_pydicom_plugin", name="register_as_decoder_plugin")
    return bool(HAS_DECODERS and found and there() and register())


def decode(plain: Dataset) -> np.ndarray:
    """Decode one grey frame on the GPU; the first of each format on the CPU too.

    Returns:
        integer pixel cells [H, W].

    Raises:
        RuntimeError: if the first frame of its format differs from what the CPU makes of it.
    """
    syntax = str(plain.file_meta.TransferSyntaxUID)
    pixels = _ask(plain, _label())
    if syntax not in _trusted:
        expected = _ask(plain, "pylibjpeg" if int(syntax.rpartition(".")[2]) > 50 else "pillow")
        same = pixels.shape == expected.shape
        difference = np.abs(pixels.astype(np.int64) - expected).max(initial=0) if same else np.inf
        _trusted[syntax] = bool(difference <= _FORMATS[syntax])
        if not _trusted[syntax]:
            logger.warning("nvImageCodec decodes %s otherwise than the CPU, and is not used for it", UID(syntax).name)
    if not _trusted[syntax]:
        raise RuntimeError("differs from the CPU")
    return pixels


def _label() -> str:
    """The plug-in's name among pydicom's."""
    label, _ = optional_import("monai.data.nvimgcodec_pydicom_plugin", name="NVIMGCODEC_PLUGIN_LABEL")
    return str(label)


def _ask(plain: Dataset, plugin: str) -> Any:
    decoder = get_decoder(plain.file_meta.TransferSyntaxUID)
    return decoder.as_array(plain, index=0, correct_unused_bits=False, decoding_plugin=plugin)[0]
