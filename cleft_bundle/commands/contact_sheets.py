"""Small pictures of many images on a few pages, each with what it is called and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from cleft_bundle.commands.looking import Look
from cleft_bundle.data.images.turns import UNKNOWN
from cleft_bundle.files import replacing

SIDE = 160  # pixels of a picture
_COLUMNS, _ROWS = 10, 20
_LINE, _GAP = 14, 6
_PAPER, _INK, _ALARM, _EMPTY = (255, 255, 255), (20, 20, 20), (170, 0, 0), (225, 225, 225)


def write_sheets(looks: Sequence[Look], path: str | Path) -> list[Path]:
    """Write the pictures of images, and the reasons of files that cannot be read, to PNG files.

    The captions are names of files without their folders, and the second line says modality, side and view, with a
    question mark behind a guess.

    Args:
        looks: one a file, in order, with pictures.
        path: the first page; further ones are called ``name-2.png``, ``name-3.png``, ...

    Returns:
        The pages, 200 files on each.
    """
    path = Path(path)
    font = ImageFont.truetype(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), _LINE - 4)
    pages = []
    for number, start in enumerate(range(0, len(looks), _COLUMNS * _ROWS), start=1):
        page = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        with replacing(page) as temporary:
            _draw(looks[start : start + _COLUMNS * _ROWS], font).save(temporary, "PNG")
        pages.append(page)
    return pages


def _draw(looks: Sequence[Look], font: ImageFont.FreeTypeFont) -> Image.Image:
    width, height = SIDE + 2 * _GAP, SIDE + 3 * _LINE + 2 * _GAP
    columns = min(_COLUMNS, len(looks))
    sheet = Image.new("RGB", (columns * width, -(-len(looks) // columns) * height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, look in enumerate(looks):
        left, top = place % columns * width + _GAP, place // columns * height + _GAP
        if look.picture is None:
            pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), fill=_EMPTY)
            reason = _wrapped(look.row["error"], font, SIDE - 2 * _GAP)[: SIDE // _LINE - 1]
            pen.multiline_text((left + _GAP, top + _GAP), "\n".join(reason), _ALARM, font, spacing=2)
        else:
            rows, across = look.picture.shape
            pen.rectangle((left - 1, top - 1, left + SIDE, top + SIDE), outline=_EMPTY)  # white images are seen, too
            sheet.paste(Image.fromarray(look.picture), (left + (SIDE - across) // 2, top + (SIDE - rows) // 2))
        for line, (text, colour) in enumerate(_captions(look)):
            pen.text((left, top + SIDE + 2 + line * _LINE), _fitted(text, font, SIDE), colour, font)
    return sheet


def _captions(look: Look) -> list[tuple[str, tuple[int, int, int]]]:
    row = look.row
    said = [row["modality"] or row["format"]]
    said += [row[name] + "?" * (row[f"{name}_source"] == "description") for name in ("laterality", "view") if row[name]]
    notes = [*row["traits"].split("|"), row["blank"] and "blank", row["duplicate_of"] and "duplicate"]
    notes += ["orientation unknown"] * (row["turn"] == UNKNOWN)
    return [
        (row["file"].rpartition("/")[2], _INK),
        (" ".join([*said, row["orientation"]]), _INK),
        (", ".join(filter(None, notes)), _ALARM),
    ]


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """A text without so much of its middle that it fits: names of one export often begin alike."""
    cut, kept = text, len(text)
    while font.getlength(cut) > width and kept > 2:
        kept -= 1
        cut = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    return cut


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], joined] if font.getlength(joined) <= width else [*lines, word]
    return [_fitted(line, font, width) for line in lines if line]
