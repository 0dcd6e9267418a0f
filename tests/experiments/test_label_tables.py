import pandas as pd
import pytest

from cleft_bundle.data.datasets import folder
from cleft_bundle.errors import BundleError
from cleft_bundle.experiments.experiment_file import LabelTable
from cleft_bundle.experiments.label_tables import write_label_table

ROWS = {
    "image": ["images/a.png", "images/b.png", "images/c.png", "images/d.png"],
    "patient_id": ["1", "1", "2", "3"],
    "finding": ["No Finding", "Edema|Pneumonia", "Pneumonia|Pneumonia", ""],
    "density": ["fatty", "dense", "", "fatty"],
    "text": ["One. Two.", "Three, four.", "Five.", "Six."],
    "sex": ["F", "M", "", "F"],
    "url": ["x"] * 4,
}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "set" / "labels.csv"
    path.parent.mkdir()
    pd.DataFrame(ROWS).to_csv(path, index=False)
    return str(path)


def test_values_get_the_names_of_classes(source, tmp_path):
    names = {"Pneumonia": "pneumonia", "No Finding": "none"}
    path = write_label_table(LabelTable(source=source, values=names), source, tmp_path / "out")
    items = folder.datalist(tmp_path / "out")
    assert [item["image"] for item in items] == [str(tmp_path / "set" / "images" / f"{name}.png") for name in "abc"]
    assert [list(item["findings"]) for item in items] == [["none", "pneumonia"]] * 3
    assert [item["label"] for item in items] == [[1, 0], [0, 1], [0, 1]]
    assert len({item["patient_id"] for item in items}) == 2
    before = path.stat().st_mtime_ns
    write_label_table(LabelTable(source=source, values=names), source, tmp_path / "out")
    assert path.stat().st_mtime_ns == before


def test_another_column_the_rest_and_a_text(source, tmp_path):
    write_label_table(LabelTable(source=source, finding="density", caption="text"), source, tmp_path / "density")
    items = folder.datalist(tmp_path / "density")
    assert [item["caption"] for item in items] == ["One. Two.", "Three, four.", "Six."]
    assert [item["label"] for item in items] == [[0, 1], [1, 0], [0, 1]]  # dense, fatty
    rest = LabelTable(source=source, values={"No Finding": "normal", "*": "not normal"})
    write_label_table(rest, source, tmp_path / "rest")
    found = pd.read_csv(tmp_path / "rest" / "labels.csv")
    assert found["finding"].tolist() == ["normal", "not normal", "not normal"]


def test_some_rows_without_some_columns_and_a_text_around_others(source, tmp_path):
    table = LabelTable(source=source, where={"density": "dense"}, without=["patient_id"], caption="Seen: {finding}!")
    found = pd.read_csv(write_label_table(table, source, tmp_path / "some"))
    whole = pd.read_csv(source)
    dense = whole[whole["density"] == "dense"]
    assert 0 < len(found) < len(whole)
    assert [name.rpartition("/")[2] for name in found["image"]] == [n.rpartition("/")[2] for n in dense["image"]]
    assert found["caption"].tolist() == [f"Seen: {name.replace('|', ', ').lower()}!" for name in dense["finding"]]
    assert "patient_id" not in found
    with pytest.raises(BundleError, match="no row with density 'x' of column 'finding' has any of its values"):
        write_label_table(LabelTable(source=source, where={"density": "x"}), source, tmp_path)
    with pytest.raises(BundleError, match="there is no column 'text_'"):
        write_label_table(LabelTable(source=source, caption="{text_}"), source, tmp_path)


def test_what_is_not_there_is_named(source, tmp_path):
    with pytest.raises(BundleError, match=r"there is no column 'densty' \(did you mean 'density'\?\)"):
        write_label_table(LabelTable(source=source, finding="densty"), source, tmp_path)
    with pytest.raises(BundleError, match="no row of column 'finding' has any of X"):
        write_label_table(LabelTable(source=source, values={"X": "x"}), source, tmp_path)
    with pytest.raises(BundleError, match=r"none\.csv does not exist"):
        write_label_table(LabelTable(source="none.csv"), "none.csv", tmp_path)
