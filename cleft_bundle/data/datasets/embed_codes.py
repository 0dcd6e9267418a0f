"""EMBED's codes for masses and calcifications, in the words of the legend that comes with the data.

``AWS_Open_Data_Clinical_Legend.csv`` has a row per code: ``Header in export`` (the column of the clinical table),
``Code`` and ``Meaning``.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pandas as pd

from cleft_bundle.data import tables
from cleft_bundle.errors import BundleError
from cleft_bundle.names import plain_name

logger = logging.getLogger(__name__)

#: From the columns with codes to the slots of captions that their words fill.
SLOTS = {
    "massshape": "mass_shape",
    "massmargin": "mass_margin",
    "massdens": "mass_density",
    "calcfind": "calcification_type",
    "calcdistri": "calcification_distribution",
}
#: What to do with a code that the legend does not explain.
UNKNOWN = ("error", "skip")

_COLUMNS = ("Header in export", "Code", "Meaning")
# captions say these themselves: "low density" would become "low density density"
_NOUNS = re.compile(r"\s+(shape|margins?|density|calcifications?|distribution)$")


def read_legend(path: Path) -> dict[str, dict[str, str]] | None:
    """Read what the codes mean.

    Args:
        path: the legend.

    Returns:
        From each column of :data:`SLOTS` to its codes in upper case and their meanings in lower case, without the noun
        that captions say themselves; None where there is no legend.

    Raises:
        BundleError: a column is missing, or a code has two meanings.
    """
    if not path.is_file():
        logger.warning("EMBED: there is no %s, so captions say nothing of masses and calcifications", path.name)
        return None
    meanings: dict[str, dict[str, str]] = {column: {} for column in SLOTS}
    frame = tables.read_table(path, _COLUMNS)
    frame = frame[frame["Header in export"].isin(meanings) & (frame["Code"] != "") & (frame["Meaning"] != "")]
    for row, column, code, meaning in frame[list(_COLUMNS)].itertuples():
        words = _NOUNS.sub("", plain_name(meaning))
        if meanings[column].setdefault(code.upper(), words) != words:
            raise BundleError(f"{path}, row {row}: code '{code}' of '{column}' has another meaning in an earlier row")
    return meanings


def translate(frame: pd.DataFrame, path: Path, legend: dict[str, dict[str, str]] | None, unknown: str) -> pd.DataFrame:
    """Put the codes of the clinical table into words.

    Args:
        frame: the table's columns as text; each of :data:`SLOTS` may be missing. A field may hold several codes joined
            by commas.
        path: the table, for messages.
        legend: what :func:`read_legend` gives.
        unknown: "error", or "skip" to pass over codes that the legend does not have, with their count in the log.

    Returns:
        The slots of captions as columns with the index of ``frame``: text such as "amorphous and punctate"; empty where
        there is no code, no column or no legend.

    Raises:
        BundleError: a code is unknown; names the column, the count and the first row.
    """
    words = pd.DataFrame("", index=frame.index, columns=list(SLOTS.values()), dtype=object)
    for column, slot in SLOTS.items():
        if legend is None or column not in frame:
            continue
        fields = {field: [code.strip().upper() for code in field.split(",")] for field in frame[column].unique()}
        fields = {field: [code for code in codes if code] for field, codes in fields.items()}
        strange = {field for field, codes in fields.items() if any(code not in legend[column] for code in codes)}
        bad = frame.loc[frame[column].isin(strange), column]
        if len(bad):
            message = (
                f"{path}: column '{column}' holds a code that the legend does not have in {tables.rows(len(bad))}, "
                f"the first is '{bad.iloc[0]}' in row {bad.index[0]}; "
                f"the legend has {', '.join(legend[column]) or 'none'}"
            )
            if unknown == "error":
                raise BundleError(f"{message}; add it to the legend, or set unknown_codes to 'skip'")
            logger.warning("%s; passed over", message)
        meaning = {
            field: " and ".join(legend[column][code] for code in codes if code in legend[column])
            for field, codes in fields.items()
        }
        words[slot] = [meaning[field] for field in frame[column]]
    return words
