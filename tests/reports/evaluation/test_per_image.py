import csv
import math

import numpy as np

from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.reports.evaluation.per_image import write_per_image
from tests.reports.evaluation.conftest import items_of


def test_each_image_has_its_scores_labels_calls_and_outcomes(make_scored, tmp_path):
    labels, scores = make_scored().labels.copy(), make_scored().scores.copy()
    labels[2, 1] = np.nan
    scores[2] = [0.1 + 0.2, math.nextafter(0.3, 1)]
    items = items_of(60)
    items[5] |= {"age": 95.0, "split": "test"}
    errors = [""] * 60
    errors[4] = "folder/4.png: no radiograph"
    scored = make_scored(labels=labels, scores=scores, items=items, errors=errors)
    path = tmp_path / "per_image.csv"
    write_per_image(scored, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert rows[0]["image"] == pseudonym("folder/0.png")
    assert "folder" not in path.read_text()
    assert (rows[5]["age"], rows[5]["sex"], rows[5]["split"], rows[3]["sex"]) == ("80 and over", "male", "test", "")
    assert (rows[4]["error"], rows[4]["score: edema"], rows[4]["outcome: edema"]) == ("unreadable", "", "")
    for number, row in enumerate(rows):
        if number == 4:
            continue
        for column, name in enumerate(scored.class_names):
            score, label = scores[number, column], labels[number, column]
            assert float(row[f"score: {name}"]) == score  # no digit is lost
            assert row[f"label: {name}"] == ("" if math.isnan(label) else str(int(label)))
            called = score >= scored.thresholds[name]
            assert row[f"called: {name}"] == str(int(called))
            right = "true" if label == called else "false"
            outcome = "" if math.isnan(label) else f"{right} {'positive' if called else 'negative'}"
            assert row[f"outcome: {name}"] == outcome


def test_a_class_without_a_threshold_is_neither_called_nor_judged(make_scored, tmp_path):
    write_per_image(make_scored(thresholds={"edema": 0.5}), tmp_path / "per_image.csv")
    with (tmp_path / "per_image.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["called: effusion"], row["outcome: effusion"]) == ("", "")
    assert row["outcome: edema"]
