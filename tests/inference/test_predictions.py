import csv
import json

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from cleft_bundle.inference import PredictionJournal, PredictionWriter
from cleft_bundle.inference.journal import Scored
from cleft_bundle.inference.predictions import FIXED
from cleft_bundle.names import column

CLASSES = ["edema", "no finding"]
LISTED = ["b/x.dcm", "c.png", "a,1.dcm"]
BATCHES = [
    {"image": torch.zeros(1, 1), "path": ["b/x.dcm"], "failures": [{"path": "a,1.dcm", "error": "not a DICOM file"}]},
    {"image": torch.zeros(0, 1), "path": [], "failures": [{"path": "c.png", "error": "truncated"}]},
]


@pytest.fixture
def predictions(tmp_path):
    journal = PredictionJournal(tmp_path / "out" / "predictions.jsonl", {"class_names": CLASSES, "model": "abc"})
    journal.pending([{"image": str(tmp_path / path), "path": path} for path in LISTED])
    return PredictionWriter(str(tmp_path / "out"), CLASSES, journal, {"edema": 0.25, "no finding": 0.9})


def evaluate(predictions, *handlers):
    SupervisedEvaluator(
        device="cpu",
        val_data_loader=BATCHES,
        network=torch.nn.Identity(),
        inferer=lambda inputs, network: torch.tensor([[0.25, 0.75]]).expand(len(inputs), 2),
        decollate=False,
        val_handlers=[*handlers, predictions],
    ).run()


def test_every_image_has_one_row_in_the_order_of_the_listing_and_the_unreadable_ones_their_reason(
    predictions, tmp_path
):
    for _ in range(2):  # a second run replaces the first, it does not add to it
        evaluate(predictions)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", *CLASSES, "prediction", "positive", "typicality", "unusual", "error", "name"]
    assert [row["image"] for row in rows] == LISTED
    assert [row["error"] for row in rows] == ["", "truncated", "not a DICOM file"]
    assert rows[0]["edema"] == "0.25"
    assert rows[0]["prediction"] == "no finding"
    assert [row["positive"] for row in rows] == ["edema", "", ""]
    assert rows[1]["edema"] == rows[1]["prediction"] == ""
    assert len({row["name"] for row in rows}) == 3
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["class_names"] == CLASSES
    assert content["model"] == "abc"
    assert content["predictions"][0]["no finding"] == 0.75
    assert content["predictions"][1]["edema"] is None
    assert [row["positive"] for row in content["predictions"]] == [["edema"], None, None]
    files = ["predictions.csv", "predictions.json", "predictions.jsonl"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == files


def test_what_the_classifier_knows_of_an_image_stands_in_both_files_and_in_the_log(predictions, tmp_path, caplog):
    class Knowing:
        """Hand on typicalities as a ReadableInferer does."""

        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)

        def add(self, engine):
            engine.state.output["typicality"] = torch.full(
                (len(engine.state.batch["path"]),), 0.04, dtype=torch.float64
            )

    with caplog.at_level("INFO"):
        evaluate(predictions, Knowing())
    assert "1 unlike the validation images" in caplog.text
    journal = PredictionJournal(predictions.journal.path, predictions.journal.settings)
    journal.pending([{"image": str(tmp_path / path), "path": path} for path in LISTED])
    PredictionWriter(str(tmp_path / "out"), CLASSES, journal, predictions.thresholds).write()  # as it is read back
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["typicality"], row["unusual"]) for row in rows] == [("0.04", "true"), ("", ""), ("", "")]
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert [(row["typicality"], row["unusual"]) for row in content] == [(0.04, True), (None, None), (None, None)]


def test_what_was_scored_before_is_written_without_a_run(predictions, tmp_path):
    evaluate(predictions)
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    (tmp_path / "out" / "predictions.csv").unlink()
    journal = PredictionJournal(predictions.journal.path, predictions.journal.settings)
    assert journal.pending([{"image": str(tmp_path / path), "path": path} for path in LISTED]) == []
    PredictionWriter(str(tmp_path / "out"), CLASSES, journal, predictions.thresholds).write()
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before


def test_classes_of_any_name_keep_their_scores_in_both_files(tmp_path):
    names = [
        "positive",
        "image",
        "error",
        "name",
        "unusual",
        "class:error",
        "=1+1",
        "a|b",
        "two\nlines",
        " 'x\", ",
        "Ödem 😀",
    ]
    scores = [number / 100 for number in range(len(names))]
    journal = PredictionJournal(tmp_path / "predictions.jsonl", {"class_names": names})
    journal.pending([{"image": str(tmp_path / "a.png"), "path": "a.png"}])
    journal.open()
    journal.append({"a.png": Scored(tuple(scores))})
    writer = PredictionWriter(str(tmp_path), names, journal, {"a|b": 0.0, "positive": 0.0})
    writer.write()
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        head, row = csv.reader(file)
    assert len(set(head)) == len(head) == len(names) + 7
    assert [float(dict(zip(head, row, strict=True))[column(name, FIXED)]) for name in names] == scores
    assert dict(zip(head, row, strict=True))["positive"] == "a\\|b|positive"
    (found,) = json.loads((tmp_path / "predictions.json").read_text())["predictions"]
    assert [found[column(name, FIXED)] for name in names] == scores
    assert found["prediction"] == "Ödem 😀"
    assert found["positive"] == ["a|b", "positive"]


def test_blank_images_are_counted_apart(predictions, tmp_path, caplog):
    with caplog.at_level("INFO"):
        evaluate(predictions)
        assert "1 images scored, 2 unreadable:" in caplog.text
        predictions.journal.open()
        predictions.journal.append({LISTED[1]: Scored(error="blank")})
        predictions.write()
    assert "1 images scored, 1 unreadable, 1 blank:" in caplog.text


def test_scores_that_do_not_tie_do_not_tie_in_the_table(tmp_path):
    scores = [float(torch.tensor(0.1)), float(torch.nextafter(torch.tensor(0.1), torch.tensor(1.0))), 1e-9, 2e-9]
    scores += [1 - 2**-24, 1 - 2**-53]  # next to 1 in single and in double precision
    names = [str(number) for number in range(len(scores))]
    journal = PredictionJournal(tmp_path / "predictions.jsonl", {"class_names": names})
    journal.pending([{"image": str(tmp_path / "a.png"), "path": "a.png"}])
    journal.open()
    journal.append({"a.png": Scored(tuple(scores))})
    PredictionWriter(str(tmp_path), names, journal, {}).write()
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert [float(row[name]) for name in names] == scores
