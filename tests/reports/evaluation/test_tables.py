import json

import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.reports.evaluation.tables import join, read_label_table, read_score_table, read_thresholds, task_of

LABELS = """image,finding,patient_id,sex,age,manufacturer,split
a/1.png,Edema,p1,F,30,Acme,test
a/2.png,no finding,p1,F,30,Acme,test
a/3.png,edema|effusion,p2,M,,GE,test
a/4.png,,p3,M,50,GE,test
a/5.png,no finding,p4,,50,GE,train
"""


@pytest.fixture
def write(tmp_path):
    def save(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return save


def test_the_predictions_of_an_inference_are_read(write):
    path = write(
        "predictions.csv",
        "image,edema,class:error,no finding,prediction,positive,error,name\n"
        "a/1.png,0.9,0.05,0.05,edema,edema,,0123\na/2.png,,,,,,no radiograph,0124\n",
    )
    table = read_score_table(path)
    assert table.class_names == ["edema", "error", "no finding"]
    np.testing.assert_array_equal(table.scores, [[0.9, 0.05, 0.05], [np.nan] * 3])
    assert table.errors == ["", "no radiograph"]


def test_scores_of_another_tool_are_read_and_its_other_columns_left_alone(write):
    path = write("scores.csv", "path;edema;age;note\nx.png;-3.5;44;fine\ny.png;2;40;odd\n")
    table = read_score_table(path)
    assert table.class_names == ["edema"]
    assert table.names == ["x.png", "y.png"]


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        ("who,edema\nx,1\n", None, "expected a column that names the image"),
        ("image,edema\nx,1\nx,2\n", None, "repeats an earlier value"),
        ("image,edema\nx,1\n", ["oedema"], r"no column of the class 'oedema' \(did you mean 'edema'\?\)"),
        ("image,edema\nx,1\ny,high\n", None, "column 'edema' holds what is no finite number in 1 row.*'high' in row 3"),
        ("image,a,b\nx,1,0\ny,1,\n", None, "1 row has a score for some of the classes only, the first is row 3"),
        ("image,note\nx,fine\n", None, "expected a column of scores for each class, found none"),
        ("image,edema\nx,inf\n", None, "no finite number"),
    ],
)
def test_a_bad_table_of_scores_is_one_clear_error(write, text, classes, message):
    with pytest.raises(BundleError, match=message) as caught:
        read_score_table(write("scores.csv", text), classes)
    assert "\n" not in str(caught.value)


def test_labels_are_read_with_all_that_is_known_and_rows_left_out_are_counted(write):
    table = read_label_table(write("labels.csv", LABELS), ["EDEMA", "effusion", "no finding"], split="test")
    assert [item["label"] for item in table.items] == [[1, 0, 0], [0, 0, 1], [1, 1, 0]]
    assert [item.get("manufacturer") for item in table.items] == ["Acme", "Acme", "GE"]
    assert [item.get("sex") for item in table.items] == ["F", "F", "M"]
    assert table.left_out == {
        "no finding in the table of labels": {"images": 1, "patients": None},
        "of another split": {"images": 1, "patients": 1},
    }


@pytest.mark.parametrize(
    ("classes", "split", "message"),
    [
        (["pneumonia", "mass"], None, "no class has images with and without it.*findings edema, no finding"),
        (["edema", "no finding"], "validation", "no row has the split 'validation'; there are test, train"),
        (["edema", "Edema"], None, "two classes are called 'edema' but for case"),
    ],
)
def test_labels_that_do_not_fit_are_one_clear_error(write, classes, split, message):
    with pytest.raises(BundleError, match=message):
        read_label_table(write("labels.csv", LABELS), classes, split)


def test_columns_of_classes_say_what_is_not_known(write, caplog):
    text = "image,patient_id,age,Edema,effusion,class:age\na.png,p1,30,1,,0\nb.png,p1,30,0,-1,1\nc.png,p2,,0.0,1,\n"
    table = read_label_table(write("labels.csv", text), ["edema", "effusion", "age", "mass"])
    nan = np.nan
    labels = np.array([item["label"] for item in table.items])
    np.testing.assert_array_equal(labels, [[1, nan, 0, nan], [0, nan, 1, nan], [0, 1, nan, nan]])
    assert table.items[0]["findings"] == {"edema": 1.0, "age": 0.0}
    assert table.items[0]["age"] == 30
    assert table.items[0]["patient_id"] == table.items[1]["patient_id"] != table.items[2]["patient_id"]
    assert "no column of mass: known of no image" in caplog.text
    assert table.left_out == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,pneumonia\na.png,1\n", "expected a column 'finding', or one for each class with 1, 0, or nothing"),
        ("image,edema\na.png,1\nb.png,yes\n", "column 'edema' holds an unknown value in 1 row, .* 'yes' in row 3"),
        ("image,edema\na.png,1\na.png,0\n", "repeats an earlier value"),
        ("image,edema\na.png,1\nb.png,\n", "no class has images with and without it"),
    ],
)
def test_bad_columns_of_classes_are_one_clear_error(write, text, message):
    with pytest.raises(BundleError, match=message):
        read_label_table(write("labels.csv", text), ["edema"])


@pytest.mark.parametrize("folder", ["a/", "./a/", "elsewhere/", ""])
def test_scores_and_labels_meet_by_path_or_by_file_name(write, folder):
    rows = "".join(f"{folder}{number}.png,0.{number},0.1\n" for number in (3, 1, 9))
    scores = read_score_table(write("scores.csv", f"image,edema,no finding\n{rows}"))
    labels = read_label_table(write("labels.csv", LABELS), scores.class_names)
    values, errors, left_out = join(scores, labels)
    np.testing.assert_array_equal(values[:, 0], [0.1, np.nan, 0.3, np.nan])
    assert errors == ["", "no row in the table of scores", "", "no row in the table of scores"]
    assert left_out["no finding in the table of labels"]["images"] == 1


def test_tables_of_other_images_are_an_error(write):
    scores = read_score_table(write("scores.csv", "image,edema,no finding\nz/77.png,0.5,0.5\n"))
    labels = read_label_table(write("labels.csv", LABELS), scores.class_names)
    with pytest.raises(BundleError, match=r"no image of the scores, such as z/77.png, is among the labels"):
        join(scores, labels)


def test_classes_exclude_each_other_where_scores_sum_to_one_and_no_image_has_two():
    one, two = [{"label": [1.0, 0.0]}], [{"label": [1.0, 1.0]}]
    sums = np.array([[0.25, 0.75]])
    assert task_of(sums, one) == "multiclass"
    assert task_of(sums, two) == "multilabel"
    assert task_of(sums * 1.2, one) == "multilabel"
    assert task_of(np.array([[1.0]]), one) == "multilabel"


def test_thresholds_come_as_an_object_a_file_or_a_report(write):
    assert read_thresholds('{"edema": 0.25}', ["edema"]) == {"edema": 0.25}
    assert read_thresholds(write("t.json", '{"edema": 1}'), ["edema"]) == {"edema": 1.0}
    points = {"operating_points": {"classes": {"edema": {"threshold": 0.125}}}}
    assert read_thresholds(write("report.json", json.dumps(points)), ["edema"]) == {"edema": 0.125}
    assert read_thresholds(None, ["edema"]) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing.json", "there is no file nothing.json"),
        ('{"edma": 0.5}', r"'edma' is no class \(did you mean 'edema'\?\)"),
        ('{"edema": "high"}', "that of 'edema' is no number"),
        ("{edema}", "is no JSON"),
    ],
)
def test_bad_thresholds_are_one_clear_error(given, message):
    with pytest.raises(BundleError, match=message):
        read_thresholds(given, ["edema"])
