import numpy as np
import pytest
from PIL import Image

from cleft_bundle.commands import contact_sheets
from cleft_bundle.commands.contact_sheets import SIDE, write_sheets
from cleft_bundle.commands.looking import Look


def look(name, grey=None, **row):
    picture = None if grey is None else np.full((SIDE, SIDE // 2), grey, np.uint8)
    found = Look(picture=picture)
    found.row |= {"file": name, "modality": "DX", **row}
    return found


def test_each_file_has_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheets, "_COLUMNS", 3)
    looks = [look(f"folder/{number}.dcm", 40 * number) for number in range(4)]
    looks.append(look("broken.dcm", error="is no image " * 20))
    (page,) = write_sheets(looks, tmp_path / "new" / "s.png")
    sheet = np.asarray(Image.open(page))
    width, height = sheet.shape[1] // 3, sheet.shape[0] // 2
    for place in range(4):
        row, column = divmod(place, 3)
        middle = sheet[row * height + SIDE // 2, column * width + width // 2]
        assert middle.tolist() == [40 * place] * 3
    reason = sheet[height : height + SIDE, width : 2 * width].astype(int)
    assert (reason[..., 0] - reason[..., 1]).max() > 100  # in red
    assert list(page.parent.iterdir()) == [page]


def test_many_files_take_several_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheets, "_COLUMNS", 2)
    monkeypatch.setattr(contact_sheets, "_ROWS", 2)
    pages = write_sheets([look(f"{number}.dcm", 9) for number in range(9)], tmp_path / "s.png")
    assert [page.name for page in pages] == ["s.png", "s-2.png", "s-3.png"]
    heights = [Image.open(page).height for page in pages]
    assert heights[0] == heights[1] == 2 * heights[2]


@pytest.mark.parametrize(
    ("row", "captions"),
    [
        ({"view": "PA", "view_source": "tag", "orientation": "L\\F"}, ["DX PA L\\F", ""]),
        (
            {"view": "MLO", "view_source": "description", "laterality": "R", "laterality_source": "code"},
            ["DX R MLO?", ""],
        ),
        ({"modality": "", "format": "png", "blank": "yes", "duplicate_of": "x"}, ["png", "blank, duplicate"]),
        ({"traits": "implant|spot"}, ["DX", "implant, spot"]),
    ],
)
def test_captions_have_no_folder_and_mark_a_guess(row, captions):
    name, *others = contact_sheets._captions(look("CANARY^NAME/IM1", **row))
    assert name[0] == "IM1"
    assert [text.strip() for text, _ in others] == captions
