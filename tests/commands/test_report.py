"""``cleft report``."""

import csv
import json
import re
import sys
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from cleft_bundle import commands
from cleft_bundle.commands.report import Options, report
from cleft_bundle.errors import BundleError

CLASSES = ["edema", "pleural effusion", "no finding"]
TABLES = ["--labels", "l.csv", "--scores", "s.csv"]


@pytest.fixture
def hospital(tmp_path):
    """A folder with an odd name: 24 pictures of 12 patients with a table of labels, and scores of some other tool."""
    folder = tmp_path / "a, b#c 2020"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines, scores = ["image,finding,patient_id,sex,age"], ["path," + ",".join(CLASSES)]
    for number in range(24):
        Image.fromarray(rng.integers(0, 255, (60, 50), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
        finding = CLASSES[number % 3]
        lines.append(f"images/{number}.png,{finding},p{number // 2},{'FM'[number % 2]},{30 + number}")
        values = (0.7 * (name == finding) + 0.3 * rng.random() for name in CLASSES)
        scores.append(f"images/{number}.png," + ",".join(f"{value:.4f}" for value in values))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "scores.csv").write_text("\n".join(scores) + "\n")
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """The command as a shell runs it."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["cleft", "report", *map(str, words)])
        commands.main()
        return capsys.readouterr().out

    return call


def content(folder):
    return json.loads((folder / "report.json").read_text())


def test_the_scores_of_any_tool_are_reported(hospital, run, tmp_path):
    out = tmp_path / "2020"
    thresholds = '{"edema": 0.5, "no finding": 0.5}'
    printed = run("--scores", hospital / "scores.csv", "--labels", hospital / "labels.csv", "--output_dir", out,
                  "--thresholds", thresholds, "--resamples", 20, "--cases", 2)  # fmt: skip
    assert printed.split("\n")[:3] == [str(out / name) for name in ("report.html", "report.json", "per_image.csv")]
    found = content(out)
    assert (found["task"], found["dataset"]["images"], found["dataset"]["patients"]) == ("multilabel", 24, 12)
    assert found["metrics"]["auroc/edema"]["value"] == 1
    assert found["outcomes"]["missed"] == 0
    assert set(found["operating_points"]["classes"]) == {"edema", "no finding"}
    assert found["roles"] is None
    assert [file["kind"] for file in found["provenance"]["files"]] == ["scores", "labels"]
    assert "sensitivity/pleural effusion" not in found["metrics"]
    page = (out / "report.html").read_text()
    assert "No threshold is known for pleural effusion" in page
    assert page.count("data:image/png;base64,") == 2  # pictures of cases, without a network and so without maps
    with (out / "per_image.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 24


def test_labels_that_are_not_known_leave_an_image_out_of_the_figures_of_that_class_alone(hospital, run, tmp_path):
    with (hospital / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = [["image", "patient_id", *CLASSES]]
    for number, row in enumerate(rows):
        marks = ["1" if row["finding"] == name else "0" for name in CLASSES]
        marks[0] = "" if number < 7 else marks[0]
        table.append([row["image"], row["patient_id"], *marks])
    (hospital / "labels.csv").write_text("\n".join(",".join(line) for line in table) + "\n")
    run("--scores", hospital / "scores.csv", "--labels", hospital / "labels.csv", "--output_dir", tmp_path / "out",
        "--resamples", 10, "--cases", 0, "--thresholds", '{"edema": 0.5, "no finding": 0.5}')  # fmt: skip
    found = content(tmp_path / "out")
    assert found["flow"]["evaluated"]["images"] == 24
    assert found["flow"]["unknown"] == {"edema": {"images": 7, "patients": 4}}
    assert found["classes"]["edema"] | {"positive_patients": 0} == {
        "positive": 5,
        "negative": 12,
        "unknown": 7,
        "positive_patients": 0,
    }
    assert found["metrics"]["auroc/edema"]["n_images"] == 17
    assert found["metrics"]["auroc/no finding"]["n_images"] == 24
    point = found["operating_points"]["classes"]["edema"]
    assert sum(point[cell] for cell in ("tp", "fp", "fn", "tn")) == 17
    assert "Left out of the figures of single classes" in (tmp_path / "out" / "report.html").read_text()


def test_a_classifier_file_is_evaluated_on_new_images(hospital, run, model_pt, tmp_path):
    labels = hospital / "labels.csv"
    (hospital / "images" / "5.png").write_bytes(b"no picture")
    run("--model", model_pt, "--labels", labels, "--output_dir", tmp_path / "out", "--resamples", 20, "--cases", 1)
    found = content(tmp_path / "out")
    assert (found["flow"]["listed"]["images"], found["flow"]["evaluated"]["images"]) == (24, 23)
    assert found["flow"]["excluded"][0]["images"] == 1
    assert "5.png" not in json.dumps(found["flow"])
    assert found["operating_points"]["classes"] == {}  # this file holds no thresholds
    assert found["evaluated_as"] == "model.pt"
    assert found["dataset"]["split"] == "test"
    assert found["unknown_roles"]
    assert found["uncalibrated"] is None


def test_calls_of_a_classifier_file_get_heat_maps(hospital, run, model_pt, tmp_path):
    labels = hospital / "labels.csv"
    run("--model", model_pt, "--labels", labels, "--output_dir", tmp_path / "out", "--resamples", 5, "--cases", 1,
        "--thresholds", '{"edema": 0.0}')  # fmt: skip
    found = content(tmp_path / "out")
    assert (found["outcomes"]["missed"], found["outcomes"]["found"]) == (0, 8)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # one found, one false alarm, each with its map


def test_the_folder_of_the_images_may_be_another(hospital, run, model_pt, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    (hospital / "images").rename(moved)
    labels = hospital / "labels.csv"
    with pytest.raises(SystemExit):
        run("--model", model_pt, "--labels", labels, "--output_dir", tmp_path / "out")
    assert re.search(r"none of the 24 images exists.*pass --images FOLDER", capsys.readouterr().err)
    run("--model", model_pt, "--labels", labels, "--images", moved, "--output_dir", tmp_path / "out", "--resamples", 5)
    assert content(tmp_path / "out")["dataset"]["images"] == 24


def test_two_tools_are_compared(hospital, run, tmp_path):
    with (hospital / "scores.csv").open() as file:
        rows = list(csv.reader(file))
    rng = np.random.default_rng(1)
    worse = [rows[0]] + [[row[0], *(f"{rng.random():.4f}" for _ in CLASSES)] for row in rows[1:]]
    (hospital / "worse.csv").write_text("\n".join(",".join(row) for row in worse) + "\n")
    shared = ["--labels", hospital / "labels.csv", "--resamples", 30, "--cases", 0]
    other, out = tmp_path / "other, one:two", tmp_path / "own"
    run("--scores", hospital / "worse.csv", "--output_dir", other, "--name", "the other", *shared)
    run("--scores", hospital / "scores.csv", "--output_dir", out, "--compared_with", other, *shared)
    (comparison,) = content(out)["comparisons"]
    assert comparison["name"] == "the other"
    assert comparison["metrics"]["auroc_macro"]["value"] > 0.2
    assert comparison["delong"]["edema"]["value"] > 0
    page = (out / "report.html").read_text()
    assert "Compared with the other" in page
    assert "lower is better" in page


def test_classes_are_added_up_to_those_that_the_labels_know(hospital, run, tmp_path):
    lines = (hospital / "scores.csv").read_text().splitlines()
    shares = [lines[0]]
    for line in lines[1:]:
        name, *values = line.split(",")
        total = sum(map(float, values))
        shares.append(",".join([name, *(repr(float(value) / total) for value in values)]))
    (hospital / "scores.csv").write_text("\n".join(shares) + "\n")
    labels = (hospital / "labels.csv").read_text()
    labels = labels.replace("pleural effusion", "abnormal").replace("edema", "abnormal")
    (hospital / "labels.csv").write_text(labels)
    combine = '{"abnormal": ["edema", "pleural effusion"]}'
    run("--scores", hospital / "scores.csv", "--labels", hospital / "labels.csv", "--combine", combine,
        "--output_dir", tmp_path / "out", "--resamples", 10, "--cases", 0)  # fmt: skip
    found = content(tmp_path / "out")
    assert list(found["classes"]) == ["abnormal", "no finding"]
    assert found["task"] == "multiclass"
    assert found["metrics"]["accuracy"]["value"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --labels TABLE, and either --scores TABLE or --model FILE"),
        (["--labels", "l.csv", "--scores", "s.csv", "--model", "m.pt"], "expected --labels TABLE, and either"),
        (["--labels", "l.csv", "--score", "s.csv"], r"--score is no option of report \(did you mean 'scores'\?\)"),
        (TABLES, "s.csv: there is no such table"),
        (
            ["--labels", "l.csv", "--scores", "s.csv", "--resamples", "0"],
            "resamples: expected a whole number, 1 or more",
        ),
        (
            ["--labels", "l.csv", "--scores", "s.csv", "--confidence", "95"],
            "confidence: expected a number between 0 and 1",
        ),
        (["--labels", "l.csv", "--scores", "s.csv", "--unit_score", "sum"], "unit_score: expected one of max, mean"),
    ],
)
def test_what_is_wrong_is_one_line(run, words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: .*{message}", line)


def test_help_names_every_option(run):
    printed = run("--help")
    assert all(f"--{field.name}" in printed for field in fields(Options))


def test_the_function_refuses_what_the_command_refuses():
    with pytest.raises(BundleError, match="--labels TABLE"):
        report(scores="s.csv")
