import json
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.fileset import FileSet

from cleft_bundle.data import list_images
from cleft_bundle.errors import BundleError
from tests.data.radiographs import make_dicom


@pytest.fixture
def folder(tmp_path):
    """Three pictures, a text that calls itself DICOM, and what is to be left out."""
    for name in ("b.png", "a.png", "below/deep/c.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((6, 5), np.uint8)).save(path)
    (tmp_path / "images/below/notes.dcm").write_text("Dear colleague,\nthis is no image.")
    for name in (".hidden", "DICOMDIR", "below/.folder/x.png"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    return tmp_path / "images"


def paths(source, **options):
    return [item["path"] for item in list_images(str(source), **options)]


def test_a_folder_gives_every_file_sorted_without_hidden_ones(folder):
    items = list_images(str(folder))
    assert [item["path"] for item in items] == ["a.png", "b.png", "below/deep/c.png", "below/notes.dcm"]
    assert all(Path(item["image"]) == folder / item["path"] for item in items)
    assert paths(folder, exclude=["*.png"]) == ["DICOMDIR", "below/notes.dcm"]


def test_links_are_followed_each_file_is_listed_once_and_the_rest_is_told(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.png").touch()
    (folder / "site_b").symlink_to(tmp_path / "elsewhere")
    (folder / "again.png").symlink_to(folder / "b.png")
    (folder / "below" / "up").symlink_to(folder)
    assert paths(folder) == ["a.png", "b.png", "below/deep/c.png", "below/notes.dcm", "site_b/far.png"]
    told = caplog.text.rpartition("left out: ")[2].strip().split(", ")
    assert sorted(told) == ["1 further links to a file", "1 further links to a folder", "1 named DICOMDIR", "2 hidden"]


def test_a_relative_folder_gives_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert list_images("below")[0] == {"image": str(folder / "below/deep/c.png"), "path": "deep/c.png"}


@pytest.mark.parametrize("kind", ["list.txt", "list.json", "table.csv"])
def test_a_list_keeps_its_order_and_reads_each_file_once(folder, kind):
    elsewhere = str(folder / "a.png")
    listed = ["b.png", elsewhere, "missing, or not.png", "./b.png", "below/notes.dcm"]
    text = {
        "list.txt": "\ufeff" + "\n\n".join(listed) + "\n",
        "list.json": json.dumps(listed),
        "table.csv": "finding,image\n" + "".join(f'edema,"{name}"\n' for name in listed),
    }[kind]
    (folder / kind).write_text(text, encoding="utf-8")
    items = list_images(str(folder / kind))
    assert [item["path"] for item in items] == ["b.png", elsewhere, "missing, or not.png", "below/notes.dcm"]
    assert [os.path.relpath(item["image"], folder) for item in items] == [
        *("b.png", "a.png", "missing, or not.png", "below/notes.dcm")
    ]


def test_a_dicomdir_gives_its_image_records_and_those_that_are_missing(tmp_path):
    files = FileSet()
    for number in range(3):
        identifiers = {
            **{"PatientID": f"P{number // 2}", "PatientName": "A^B", "StudyDate": "20200101", "StudyTime": "120000"},
            **{"StudyID": "1", "StudyInstanceUID": f"1.2.{number // 2}", "SeriesInstanceUID": f"1.2.{number}.1"},
            **{"SeriesNumber": 1, "InstanceNumber": 1, "SOPInstanceUID": f"1.2.{number}.1.1"},
        }
        ds = pydicom.dcmread(make_dicom(tmp_path / "image.dcm", **identifiers))
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        files.add(ds)
    files.write(tmp_path / "disk")
    named = tmp_path / "disk" / "index"
    (tmp_path / "disk" / "DICOMDIR").rename(named)
    found = list_images(str(named))
    assert len(found) == 3
    assert all(Path(item["image"]).is_file() and item["path"] in item["image"] for item in found)
    Path(found[1]["image"]).unlink()
    assert list_images(str(named)) == found


BAD = {
    "empty.txt": ("\n", r"empty\.txt: names no image"),
    "object.json": ('{"a": 1}', r"object\.json: expected a list of paths"),
    "broken.json": ("[", r"broken\.json: not readable as JSON"),
    "other.csv": ("picture\na.png\n", r"other\.csv: column 'image' is missing"),
    "gap.csv": ("image,x\n,1\n", r"gap\.csv: column 'image' is empty in 1 row"),
    "a.png": ("CANARY", r"a\.png: expected a folder, a \.txt, \.json or \.csv that lists images, or a DICOMDIR$"),
}


@pytest.mark.parametrize("name", BAD)
def test_another_file_is_one_line(tmp_path, name):
    text, message = BAD[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(BundleError, match=message) as caught:
        list_images(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_dicom_image_is_no_list(tmp_path):
    with pytest.raises(BundleError, match="expected a folder"):
        list_images(make_dicom(tmp_path / "x.dcm", PatientName="CANARY"))


def test_text_of_another_encoding_is_an_error(tmp_path):
    (tmp_path / "list.txt").write_bytes("Röntgen.png".encode("latin-1"))
    with pytest.raises(BundleError, match="expected UTF-8 text, found another encoding at byte 1"):
        list_images(str(tmp_path / "list.txt"))


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
    with pytest.raises(BundleError, match="nowhere: a folder of images is expected"):
        list_images(str(tmp_path / "nowhere"))
    (tmp_path / "DICOMDIR").touch()
    with pytest.raises(BundleError, match="holds no file"):
        list_images(str(tmp_path))
