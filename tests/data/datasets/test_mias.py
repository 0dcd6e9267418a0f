import logging
from pathlib import Path

import pandas as pd
import pytest

from cleft_bundle.data import make_splits
from cleft_bundle.data.captions.prompts import load_prompts
from cleft_bundle.data.datasets import mias
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

FOLDER = Path(__file__).parents[3] / "configs" / "prompts"
PROMPTS = {target: load_prompts(FOLDER / f"mias_{target}.json") for target in mias.TARGETS}
LINES = """\
REFNUM BG CLASS SEVERITY X Y RADIUS
mdb001 G CIRC B 535 425 197
mdb002 G CIRC B 522 280 69
mdb003 D NORM
mdb004 D NORM \n
mdb005 F CIRC B 477 133 30
mdb005 F CIRC B 500 168 26
mdb059 F CIRC B *NOTE 3*
mdb144 F MISC B 233 994 29
mdb144 F MISC M 313 540 27
mdb245 F CALC M
"""


def miniature(root, lines=LINES, names=("001", "002", "003", "004", "005", "059", "144", "245"), suffix="pgm"):
    (root / "Info.txt").write_text(lines)
    for name in names:
        (root / "all-mias").mkdir(exist_ok=True)
        (root / "all-mias" / f"mdb{name}.{suffix}").touch()
    return root


def test_item_of_an_abnormal_film(write):
    root = write()
    item = dict(mias.datalist(root, prompts=PROMPTS["density"])[0])
    assert Path(item.pop("image")) == root / "all-mias" / "mdb001.pgm"
    kinds = dict.fromkeys(mias.ABNORMALITIES.values(), 0.0) | {"well-defined circumscribed mass": 1.0}
    assert item == {
        "name": "all-mias/mdb001.pgm",
        "caption": "this is a scanned film mammogram of a patient on the right side in the mlo view "
        "with fatty-glandular tissue with well-defined circumscribed mass of benign pathology",
        "findings": {"fatty": 0.0, "fatty-glandular": 1.0, "dense-glandular": 0.0} | kinds,
        "label": [0.0, 1.0, 0.0],
        "patient_id": pseudonym("mias001"),
        "study_id": pseudonym("mias001"),
        "split": None,
        "laterality": "R",
        "view": "MLO",
        "pathology": "benign",
        "boxes": [[338.0, 402.0, 394.0, 394.0]],
        "box_findings": ["well-defined circumscribed mass"],
    }


def test_films_of_several_lines_and_without_a_circle(write, caplog):
    caplog.set_level(logging.INFO)
    items = {
        item["name"][-7:-4]: item for item in mias.datalist(write(), prompts=PROMPTS["severity"], target="severity")
    }
    assert [len(item.get("boxes", [])) for item in items.values()] == [1, 1, 0, 0, 2, 0, 2, 0]
    assert [item["label"].index(1.0) for item in items.values()] == [1, 1, 0, 0, 1, 1, 2, 2]
    assert items["003"]["caption"].endswith("with dense-glandular tissue with normal")
    assert [items["144"]["boxes"][0][1], items["144"]["boxes"][0][3]] == [1.0, 58.0]
    assert items["001"]["patient_id"] == items["002"]["patient_id"] != items["003"]["patient_id"]
    assert [items[name]["laterality"] for name in ("001", "002")] == ["R", "L"]
    assert "8 films, 8 items; 2 abnormalities without a circle" in caplog.text
    abnormal = mias.datalist(write(), prompts=PROMPTS["abnormality"], target="abnormality")
    assert sum(item["label"][1] for item in abnormal) == 6


def test_a_circle_is_cut_at_the_edges_of_the_film(write):
    (item,) = mias.datalist(write("mdb001 G SPIC M 10 1020 30\n", ["001"]), prompts=PROMPTS["density"])
    assert item["boxes"] == [[0.0, 0.0, 40.0, 34.0]]


def test_notes_are_no_lines_and_a_repeated_line_counts_once(write):
    lines = "MIAS database\n\nINFORMATION: 1st column\n" + LINES + "mdb001 G CIRC B 535 425 197\nNOTE 3: spread\n"
    items = mias.datalist(write(lines), prompts=PROMPTS["density"])
    assert len(items) == 8
    assert len(items[0]["boxes"]) == 1


def test_a_partial_download_trains_on_what_is_there(write, caplog):
    root = write(names=("001", "002", "003", "004"), suffix="png")
    divided = make_splits(mias.datalist(root, prompts=PROMPTS["density"]), (0.5, 0.5, 0.0))
    assert sum(map(len, divided.values())) == 4
    assert "4 of 8 images, of 2 of 6 patients" in caplog.text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mdb006 X NORM", "row 13: unknown tissue 'X'"),
        ("mdb006 F MASS B 1 2 3", "row 13: unknown class 'MASS'"),
        ("mdb006 F CIRC Z 1 2 3", "row 13: unknown severity 'Z'"),
        ("mdb006 F CIRC", "row 13: unknown severity ''"),
        ("mdb006 F CIRC B 1 2", "row 13: expected x, y and radius of a circle in pixels, got '1 2'"),
        ("mdb006 F CIRC B 1 two 3", "row 13: expected x, y and radius"),
        ("mdb006 F CIRC B 1 2 0", "row 13: the circle '1 2 0' has no radius"),
        ("mdb006 F CIRC B 2000 2 9", "lies outside 1024 pixels"),
        ("mdb001 D CIRC B 1 2 3", "row 13: tissue D, but G in an earlier line of mdb001"),
        ("mdb001 G NORM", "row 13: NORM cannot stand beside an abnormality of mdb001"),
        ("mdb003 D CIRC B 1 2 3", "row 13: NORM cannot stand beside an abnormality of mdb003"),
        ("mdb006 F NORM B", "row 13: expected nothing behind NORM"),
        ("mdb006", "row 13: expected a line such as"),
        ("mbd006 F NORM", "row 13: expected a line such as"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(write, line, words):
    with pytest.raises(BundleError, match=words):
        mias.datalist(write(f"{LINES}{line}\n"), prompts=PROMPTS["density"])


def test_wrong_arguments_and_tables(write, tmp_path):
    with pytest.raises(BundleError, match=r"Info\.txt: there is no such table"):
        mias.datalist(tmp_path, prompts=PROMPTS["density"])
    with pytest.raises(BundleError, match="the table is empty"):
        mias.datalist(write("nothing here\n"), prompts=PROMPTS["density"])
    with pytest.raises(BundleError, match="names no split"):
        mias.datalist(write(), "test", prompts=PROMPTS["density"])


@pytest.mark.shared_data
def test_the_real_films_agree_with_their_table(shared_data, tmp_path):
    """Lines written back from a table of the same films, made by others: boxes and counts agree with it."""
    table = pd.read_csv(shared_data / "data" / "mias" / "labels.csv", keep_default_na=False)
    kinds = {words: code for code, words in mias.ABNORMALITIES.items()}
    tissues = {words: code for code, words in mias.TISSUES.items()}
    lines = []
    for row in table.itertuples():
        start = f"{Path(row.image).stem} {tissues[row.density]}"
        circles = [tuple(map(int, box.split(","))) for box in row.boxes_xyxy_1024.split(";") if box]
        written = [f"{(x + to_x) // 2} {1024 - (y + to_y) // 2} {(to_x - x) // 2}" for x, y, to_x, to_y in circles
                   if to_x - x == to_y - y]  # fmt: skip
        code = kinds.get(row.finding)
        lines += (
            [f"{start} {code} {row.severity[0].upper()} {circle}" for circle in written or [""]]
            if code
            else [f"{start} NORM"]
        )
    (tmp_path / "Info.txt").write_text("\n".join(lines))
    (tmp_path / "images").symlink_to(shared_data / "data" / "mias" / "images")
    items = mias.datalist(tmp_path, prompts=PROMPTS["density"])
    assert all(Path(item["image"]).is_file() for item in items)
    assert len(items) == len(table)
    assert [item["laterality"] for item in items] == table["laterality"].tolist()
    assert [item["patient_id"] for item in items] == [pseudonym(patient) for patient in table["patient_id"]]
    counts = pd.Series([list(mias.TISSUES.values())[item["label"].index(1.0)] for item in items]).value_counts()
    assert counts.to_dict() == table["density"].value_counts().to_dict()
