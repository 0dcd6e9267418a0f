"""Cost of reading a screening mammogram in each transfer syntax: bare decoding, the bundle's chain, MONAI's own."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, LoadImaged, Resized
from monai.utils import optional_import
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array

from benchmarks.memory import peak_during
from cleft_bundle.data import RadiographCache, RadiographReader, phantoms
from cleft_bundle.errors import BundleError

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "train.json")
SIZE, SMALL = (4500, 2800), (450, 280)
DOSE = 3000  # photons of a pixel behind no tissue; their noise is what makes real images hard to compress
# without JPEG extended, whose 12 bits pydicom cannot decode alone
DCMTK = {"JPEG baseline": "+eb", "JPEG lossless": "+el", "JPEG lossless SV1": "+e1"}
BITS = {"JPEG baseline": 8}  # all that it can hold
PLAIN = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
}
ENCAPSULATED: dict[str, tuple[Any, dict[str, Any]]] = {
    "RLE": (uid.RLELossless, {}),
    "JPEG-LS": (uid.JPEGLSLossless, {}),
    "JPEG-LS near": (uid.JPEGLSNearLossless, {"jls_error": 2}),
    "JPEG 2000 lossless": (uid.JPEG2000Lossless, {}),
    "JPEG 2000": (uid.JPEG2000, {"j2k_cr": [10]}),
}
HTJ2K = "HTJ2K lossless"
SYNTAXES = (*PLAIN, *ENCAPSULATED, *DCMTK, HTJ2K)
UNCOMPRESSED = ("implicit", "explicit", "big endian", "RLE")
COLUMNS = (
    *("syntax", "file, MB", "bare, images/s", "stock, images/s", "ours, images/s", "ours / reference", "at most"),
    *("stock / ours", "first / cached", "bare, peak MB", "stock, peak MB", "ours, peak MB"),
)


def reading(
    image_size: int = 518,
    config_file: str | Sequence[str] = CONFIG,
    repeats: int = 5,
    syntaxes: Sequence[str] = SYNTAXES,
    small: bool = False,
    out: str | None = None,
    seed: int = 0,
) -> None:
    """Read one mammogram in every transfer syntax, by turns in every way, and print a table.

    The picture is a breast phantom, enlarged, with photon noise, 16 bits and a window. A first turn measures memory;
    times are the best of `repeats` more. "ours" is the config's `deterministic_transforms`; "stock" is
    LoadImaged(reader="PydicomReader") and Resized; "bare" is pydicom.pixels.pixel_array. The reference of "ours" is
    bare decoding, for uncompressed and RLE images with one cv2.resize (area) of the decoded array.

    Args:
        image_size: longer side in pixels of the resized image.
        config_file: a training config, or a list of one and its overlays.
        repeats: number of times that each way reads each file.
        syntaxes: names of the transfer syntaxes; the JPEG ones need dcmtk, HTJ2K the package imagecodecs.
        small: a picture of a hundredth of the pixels, to see that all of it runs.
        out: file to write the table to as well.
        seed: of the phantom and its noise.

    Raises:
        BundleError: where a syntax is not known, or OpenCV is not installed.
    """
    unknown = sorted(set(syntaxes) - set(SYNTAXES))
    if unknown:
        raise BundleError(f"syntaxes: expected some of {', '.join(SYNTAXES)}, got {', '.join(unknown)}")
    cv2, found = optional_import("cv2")
    if not found:
        raise BundleError("reading: its reference needs OpenCV: pip install opencv-python-headless")
    cv2.setNumThreads(torch.get_num_threads())
    ours, stock = _chain(config_file, image_size), _stock(image_size)

    def decode_and_shrink(path: str) -> None:
        pixels = _bare(path)
        width, height = (round(size * image_size / max(pixels.shape)) for size in pixels.shape[::-1])
        cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)

    lines = [" | ".join(("", *COLUMNS, "")).strip(), "|" + " --- |" * len(COLUMNS)]
    gc.freeze()  # what the imports have left need not be looked through before each measurement of memory
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for syntax, path in write_picture(Path(folder), SMALL if small else SIZE, syntaxes, seed):
            cache = RadiographCache([{"image": path}], ours, Path(folder, "cache"))
            ways: dict[str, Callable[[], Any]] = {
                "bare": partial(_bare, path),
                "reference": partial(decode_and_shrink if syntax in UNCOMPRESSED else _bare, path),
                "ours": partial(ours, {"image": path}),
                "stock": partial(stock, {"image": path}),
                "first": cache.__getitem__,
                "cached": cache.__getitem__,
            }
            lines.append(_row(syntax, path, *_measure(ways, repeats, Path(folder, "cache"))))
            print(lines[-1], file=sys.stderr)
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


def _bare(path: str) -> np.ndarray:
    """Decode with pydicom alone; its pixel_array knows no deflated files."""
    deflated = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID.is_deflated
    return pydicom.dcmread(path).pixel_array if deflated else pixel_array(path)


def _chain(config_file: str | Sequence[str], image_size: int) -> Compose:
    """The deterministic transforms of a config."""
    config = ConfigParser()
    config.read_config([config_file] if isinstance(config_file, str) else list(config_file))
    config.update({"image_size": image_size})
    return Compose(config.get_parsed_content("deterministic_transforms"))


def _stock(image_size: int) -> Compose:
    """What MONAI has by itself."""
    load = LoadImaged("image", reader="PydicomReader", ensure_channel_first=True)
    return Compose([load, Resized("image", image_size, size_mode="longest")])


def _measure(
    ways: dict[str, Callable[..., Any]], repeats: int, cache_dir: Path
) -> tuple[dict[str, float], dict[str, int]]:
    """Best time in seconds and peak megabytes of each way; the ways take turns, so that noise meets all alike."""
    seconds: dict[str, float] = dict.fromkeys(ways, float("inf"))
    memory: dict[str, int] = {}
    for turn in range(repeats + 1):
        shutil.rmtree(cache_dir)
        cache_dir.mkdir()
        for name, work in ways.items():
            call = partial(work, 0) if name in ("first", "cached") else work
            if turn == 0:
                memory[name] = peak_during(call)
            else:
                start = time.perf_counter()
                call()
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds, memory


def _row(syntax: str, path: str, seconds: dict[str, float], memory: dict[str, int]) -> str:
    cells = [
        syntax,
        f"{Path(path).stat().st_size / 1e6:.1f}",
        *(f"{1 / seconds[name]:.2f}" for name in ("bare", "stock", "ours")),
        f"{seconds['ours'] / seconds['reference']:.2f}",
        f"{2.5 if syntax in UNCOMPRESSED else 1.5}",
        f"{seconds['stock'] / seconds['ours']:.2f}",
        f"{seconds['first'] / seconds['cached']:.0f}",
        *(f"{memory[name]}" for name in ("bare", "stock", "ours")),
    ]
    return "| " + " | ".join(cells) + " |"


def write_picture(folder: Path, size: tuple[int, int], syntaxes: Sequence[str], seed: int) -> Iterator[tuple[str, str]]:
    """Write the picture in each syntax whose encoder is installed; gives the syntax's name and the file."""
    source = folder / "source.dcm"
    for syntax in syntaxes:
        _write_plain(source, size, BITS.get(syntax, 16), seed)
        target = folder / "picture.dcm"
        ds = pydicom.dcmread(source)
        if syntax in DCMTK:
            if not shutil.which("dcmcjpeg"):
                print(f"{syntax} is left out: apt-get install dcmtk", file=sys.stderr)
                continue
            subprocess.run(["dcmcjpeg", DCMTK[syntax], str(source), str(target)], check=True)  # noqa: S603, S607
        elif syntax == HTJ2K:
            imagecodecs, found = optional_import("imagecodecs")
            if not found:
                print(f"{syntax} is left out: pip install imagecodecs", file=sys.stderr)
                continue
            ds.PixelData = encapsulate([imagecodecs.htj2k_encode(ds.pixel_array)])
            ds["PixelData"].is_undefined_length = True
            ds.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
            ds.save_as(target)
        elif syntax in ENCAPSULATED:
            transfer_syntax, options = ENCAPSULATED[syntax]
            ds.compress(transfer_syntax, **options)
            ds.save_as(target)
        else:
            ds.file_meta.TransferSyntaxUID = PLAIN[syntax]
            if syntax == "big endian":
                ds.PixelData = ds.pixel_array.astype(">u2").tobytes()
            pydicom.dcmwrite(target, ds, implicit_vr=syntax == "implicit", little_endian=syntax != "big endian")
        yield syntax, str(target)


def _write_plain(path: Path, size: tuple[int, int], bits: int, seed: int) -> None:
    """Write the picture uncompressed: a phantom, enlarged, with the noise of a detector; air is 0 throughout."""
    root = phantoms.breast(str(path.parent), patients=5, seed=seed)
    reader = RadiographReader()
    phantom, _ = reader.get_data(reader.read(str(min(Path(root).rglob("*.dcm")))))
    large = torch.nn.functional.interpolate(torch.from_numpy(phantom)[None, None], size, mode="bicubic")[0, 0].numpy()
    tissue = np.clip(large, 0, 1) * (large > 0.02)
    beam = np.random.default_rng(seed).poisson(DOSE * np.exp(-3 * tissue))
    dense = np.where(tissue > 0, np.clip(np.log(DOSE / np.maximum(beam, 1)) / 3.5, 0, 1), 0)
    pixels = np.rint(dense * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid(entropy_srcs=["reading", str(seed)])
    ds.Modality, ds.PresentationIntentType, ds.PhotometricInterpretation = "MG", "FOR PRESENTATION", "MONOCHROME2"
    ds.SamplesPerPixel, ds.PixelRepresentation, (ds.Rows, ds.Columns) = 1, 0, size
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * pixels.itemsize, bits, bits - 1
    ds.ImageLaterality, ds.ViewPosition, ds.ImagerPixelSpacing = "L", "CC", [0.05, 0.05]
    ds.WindowCenter, ds.WindowWidth = 2**bits * 0.45, 2**bits * 0.8
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW" if bits > 8 else "OB"
    ds.save_as(path, enforce_file_format=True)
