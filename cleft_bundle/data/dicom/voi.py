"""DICOM's values of interest (PS3.3 C.11.2): windows and tables, and the choice among those that a file declares."""

from __future__ import annotations

from typing import Any

import numpy as np

from cleft_bundle.data.dicom.elements import numbers, tag
from cleft_bundle.data.dicom.lut import apply_table, read_table
from cleft_bundle.errors import RadiographError


def window_linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """VOI LUT function LINEAR (PS3.3 C.11.2.1.2.1), scaled to 0..1; `width` must be at least 1."""
    if width < 1:
        raise RadiographError(f"{tag('WindowWidth')} is {width:g}; LINEAR needs 1 or more")
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def window_linear_exact(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """VOI LUT function LINEAR_EXACT (PS3.3 C.11.2.1.3.2), scaled to 0..1; `width` must be positive."""
    if width <= 0:
        raise RadiographError(f"{tag('WindowWidth')} is {width:g}; LINEAR_EXACT needs more than 0")
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def window_sigmoid(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """VOI LUT function SIGMOID (PS3.3 C.11.2.1.3.1), scaled to 0..1; `width` must be positive."""
    if width <= 0:
        raise RadiographError(f"{tag('WindowWidth')} is {width:g}; SIGMOID needs more than 0")
    # 1 / (1 + exp(-4 z)) written as a hyperbolic tangent, which does not overflow
    return 0.5 + 0.5 * np.tanh(2.0 * (values - center) / width)


_WINDOWS = {"LINEAR": window_linear, "LINEAR_EXACT": window_linear_exact, "SIGMOID": window_sigmoid}


class DeclaredVoi:
    """The VOI transformations that a file declares; each gives 0..1 over its output range.

    Where a file gives windows and tables, DICOM lets the application choose.

    Args:
        ds: the data set.
        signed: whether the values that come in can be negative.
        little_endian: byte order of table entries.

    Raises:
        RadiographError: if the numbers of centres and widths differ.
    """

    def __init__(self, ds: Any, signed: bool = False, little_endian: bool = True) -> None:
        self.ds = ds
        self.signed = signed
        self.little_endian = little_endian
        self.centers, self.widths = numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth")
        self.tables = ds.get("VOILUTSequence") or []

    @property
    def names(self) -> list[str]:
        """Names of windows and tables, in the order of choice: "window 1", "window 2", ..., "lut 1", ..."""
        windows = [f"window {n + 1}" for n in range(max(len(self.centers), len(self.widths)))]
        return windows + [f"lut {n + 1}" for n in range(len(self.tables))]

    def name(self, voi: int | str) -> str:
        """Name what a reader's argument chooses, "" where the file has neither window nor table.

        Args:
            voi: the number of a window (from 0), or of a table where there are no windows; "lut": the first table, or
                the first window where there are no tables.
        """
        if not self.names:
            return ""
        tables = self.tables and (voi == "lut" or not (self.centers or self.widths))
        return f"{'lut' if tables else 'window'} {(0 if voi == 'lut' else int(voi)) + 1}"

    def apply(self, name: str, values: np.ndarray) -> np.ndarray:
        """Apply one by its name.

        Returns:
            float64 in 0..1, same shape.

        Raises:
            RadiographError: if it does not exist or is not valid.
        """
        kind, _, place = name.partition(" ")
        index = int(place) - 1
        return self._table(values, index) if kind == "lut" else self._window(values, index)

    def _table(self, values: np.ndarray, index: int) -> np.ndarray:
        if index >= len(self.tables):
            raise RadiographError(f"{tag('VOILUTSequence')} has {len(self.tables)} items; no. {index} asked")
        table = read_table(self.tables[index], self.little_endian, self.signed)
        return apply_table(values, table) / table.maximum

    def _window(self, values: np.ndarray, index: int) -> np.ndarray:
        if len(self.centers) != len(self.widths):
            raise RadiographError(
                f"{tag('WindowWidth')} has {len(self.widths)} values and {tag('WindowCenter')} {len(self.centers)}"
            )
        if index >= len(self.centers):
            raise RadiographError(f"{tag('WindowCenter')} has {len(self.centers)} values; no. {index} (from 0) asked")
        function = str(self.ds.get("VOILUTFunction") or "LINEAR").strip().upper()
        if function not in _WINDOWS:
            raise RadiographError(f"{tag('VOILUTFunction')} is none of {', '.join(_WINDOWS)}")
        return _WINDOWS[function](values, self.centers[index], self.widths[index])
