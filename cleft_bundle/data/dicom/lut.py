"""DICOM look-up tables: of the modality stage, of the values of interest, and of palettes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cleft_bundle.data.dicom.elements import numbers, tag
from cleft_bundle.errors import RadiographError

_WORDS = 1 << 16


class Table(NamedTuple):
    """A DICOM look-up table (PS3.3 C.11.1.1 and C.11.2.1.1).

    Attributes:
        entries: output values, [N].
        first: the input value that the first entry stands for; smaller inputs get the first entry, inputs beyond the
            table the last.
        maximum: top of the output range, 2**bits - 1 (or the largest entry, where a file breaks its own promise).
    """

    entries: np.ndarray
    first: int
    maximum: float


def read_table(
    item: Any,
    little_endian: bool = True,
    signed: bool = False,
    names: tuple[str, str] = ("LUTDescriptor", "LUTData"),
) -> Table:
    """Read a look-up table.

    pydicom's own functions read two-byte entries only and wrap around for inputs far above the table; files hold
    one-byte entries too (PS3.3 C.11.1.1.1 and C.11.2.1.1 allow tables of 8 bits).

    The first input value has the sign of what goes into the table, whatever VR it is written in: of the pixels for
    modality tables and palettes, of the rescaled values for VOI tables (PS3.3 C.11.1.1.1, C.11.2.1.1). In implicit VR
    the file does not say, and in explicit VR writers disagree. All else of a table is unsigned.

    Args:
        item: an item of ModalityLUTSequence or VOILUTSequence, or a data set with a palette.
        little_endian: byte order of entries that are given as bytes (VR OW).
        signed: whether the values that go into the table can be negative.
        names: keywords of the descriptor and of the entries.

    Raises:
        RadiographError: if the descriptor or the entries are absent or do not agree.
    """
    descriptor = numbers(item, names[0])
    if len(descriptor) != 3:
        raise RadiographError(f"{tag(names[0])} does not hold 3 numbers")
    count, first, bits = (int(d) % _WORDS for d in descriptor)
    count = count or _WORDS
    if signed and first >= _WORDS // 2:
        first -= _WORDS
    if not 1 <= bits <= 16:
        raise RadiographError(f"{tag(names[0])} names {count} entries of {bits} bits")
    entries = _entries(item, names[1], count, bits, little_endian)
    if len(entries) < count:
        raise RadiographError(f"{tag(names[1])} holds {len(entries)} of {count} entries")
    entries = entries[:count].astype(np.float64)
    return Table(entries, first, max(2.0**bits - 1, float(entries.max())))


def _entries(item: Any, name: str, count: int, bits: int, little_endian: bool) -> np.ndarray:
    """Entries of a table, as many as there are; those of up to 8 bits may lie two in a word, the first in its low byte.

    (PS3.5 section 8.1.1 and annex D.)
    """
    data = item.get(name)
    if not isinstance(data, bytes):
        words = (np.asarray(numbers(item, name)).astype(np.int64) % _WORDS).astype("<u2")
    elif item[name].VR == "OB":
        words = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2")
    else:
        words = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2" if little_endian else ">u2").astype("<u2")
    return words.view(np.uint8) if len(words) < count and bits <= 8 else words


def apply_table(values: np.ndarray, table: Table) -> np.ndarray:
    """Look values up in a table, with its first and last entry beyond its ends; float64, same shape."""
    index = np.clip(np.rint(values) - table.first, 0, len(table.entries) - 1)
    return table.entries[index.astype(np.int64)]


def palette_to_rgb(ds: Any, pixels: np.ndarray, signed: bool, little_endian: bool = True) -> np.ndarray:
    """Look up the colours of a PALETTE COLOR image (PS3.3 C.7.9).

    Args:
        ds: the data set with its three tables.
        pixels: stored values, [H, W].
        signed: whether they can be negative.
        little_endian: byte order of the tables.

    Returns:
        float64 [H, W, 3] in the units of the tables.
    """
    if _SEGMENTED in ds:
        raise RadiographError(f"{tag(_SEGMENTED)}: palettes in segments (PS3.3 C.7.9.2) are not read")
    names = [tuple(f"{c}PaletteColorLookupTable{part}" for part in ("Descriptor", "Data")) for c in _COLOURS]
    tables = [read_table(ds, little_endian, signed, (name[0], name[1])) for name in names]
    return np.stack([apply_table(pixels, table) for table in tables], axis=-1)


_COLOURS = ("Red", "Green", "Blue")
_SEGMENTED = "SegmentedRedPaletteColorLookupTableData"
