import numpy as np

from cleft_bundle.reports.evaluation.flow import flow, table_one
from tests.reports.evaluation.conftest import items_of


def test_every_image_that_was_left_out_is_counted_with_its_reason(make_scored):
    scores, labels = make_scored().scores.copy(), make_scored().labels.copy()
    items = [{**item, "image": f"/data/{item['name']}"} for item in items_of(60)]
    errors = [""] * 60
    for row in (0, 1, 9):
        errors[row] = f"/data/folder/{row}.png: no radiograph"
    errors[20] = "blank"
    labels[30] = np.nan
    labels[31, 0] = np.nan
    left_out = {"of another split": {"images": 7, "patients": 3}}
    found = flow(make_scored(scores=scores, labels=labels, items=items, errors=errors, left_out=left_out))
    assert found["listed"] == {"images": 60, "patients": 30}
    assert found["evaluated"] == {"images": 56, "patients": 29}  # both images of the first patient are gone
    assert found["excluded"] == [
        {"reason": "of another split", "images": 7, "patients": 3},
        {"reason": "no radiograph", "images": 3, "patients": 2},
        {"reason": "blank: all pixels have one grey", "images": 1, "patients": 1},
    ]
    assert found["without_labels"] == {"images": 1, "patients": 1}
    assert found["some_unknown"] == {"images": 1, "patients": 1}


def test_no_reason_names_a_file(make_scored):
    errors = [f"folder/{row}.png is empty, {row}.png" for row in range(59)] + [""]
    found = flow(make_scored(errors=errors))
    assert [one["reason"] for one in found["excluded"]] == ["the file is empty, the file"]


def test_table_one_describes_each_split():
    train = [{**item, "label": [1.0, 0.0], "age": 40.0} for item in items_of(4)]
    test = [{**item, "label": [0.0, float("nan")], "age": float("nan")} for item in items_of(2)]
    found = table_one({"train": train, "validation": [], "test": test}, ["effusion", "edema"])
    assert found["columns"] == ["train", "test"]
    rows = {row["name"]: row["cells"] for row in found["rows"]}
    assert rows["images"] == ["4", "2"]
    assert rows["patients"] == ["2", "1"]
    assert rows["age in years, median (quartiles)"] == ["40 (40 to 40)", "-"]
    assert rows["age not known"] == ["0", "2"]
    assert rows["female"] == ["2 (50%)", "1 (50%)"]
    assert rows["not known"] == ["1 (25%)", "0 (0%)"]
    assert rows["effusion"] == ["4 (100%)", "0 (0%)"]
    assert rows["edema"] == ["0 (0%)", "0"]
