import importlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from cleft_bundle.checkpoints import save
from cleft_bundle.engines.classifier_builder import learn_typicality
from cleft_bundle.errors import BundleError
from cleft_bundle.inference import Scorer
from cleft_bundle.networks import ZeroShotClassifier
from tests import processes


def run(root, tmp_path, script, *arguments, cwd=None):
    return processes.run([str(root / "scripts" / script), *arguments], cwd or tmp_path)


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]


@pytest.mark.slow
def test_the_training_benchmark_runs_in_all_its_ways_and_they_agree(root, tmp_path):
    done = run(root, tmp_path, "benchmark.py", "training", "--small", "--repeats", "1", "--out", "table.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    rows = cells(done.stdout)[2:]
    assert [row[0].split(",")[0] for row in rows][:2] == ["release", "release"]
    assert [row[1] for row in rows[:5]] == ["12 x 64"] * 3 + [rows[3][1], rows[4][1]]
    assert rows[4][1].startswith("9 x ")
    assert rows[5][1].startswith("1 x ")
    assert len({round(float(row[6]), 4) for row in rows[:6]}) <= 2  # rounding may fall on either side
    assert all(float(row[7]) < 1e-4 for row in rows[:6])
    assert "times the (eager) image tower alone" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_parameters_are_counted_from_any_working_directory(root, tmp_path):
    configs = [str(root / "configs" / name) for name in ("train.json", "net_cleft.json")]
    done = run(root, tmp_path, "count_parameters.py", "--config_file", str(configs))
    assert done.returncode == 0, done.stderr
    assert "90,909,953 = 90,909,952 + 1 logit scale" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_config_that_does_not_exist_is_one_line(root, tmp_path):
    done = run(root, tmp_path, "count_parameters.py", "--config_file", "no.json")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: config_file: there is no file 'no.json'"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_reading_benchmark_runs(root, tmp_path):
    pytest.importorskip("cv2", reason="needs opencv-python-headless")
    done = run(root, tmp_path, "benchmark.py", "reading", "--small", "--repeats", "1", "--out", "table.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    rows = cells(done.stdout)[2:]
    assert {"explicit", "big endian", "deflated", "RLE", "JPEG-LS", "JPEG 2000"} <= {row[0] for row in rows}
    assert all(float(cell) >= 0 for row in rows for cell in row[1:])


@pytest.mark.slow
def test_the_feeding_benchmark_runs(root, tmp_path):
    options = ["--images", "60", "--compared", "30", "--workers", "0,1", "--batch_size", "8"]
    done = run(root, tmp_path, "benchmark.py", "feeding", *options, "--folder", "made", "--out", "table.md")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "table.md").read_text().splitlines()
    starts = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert {"| filling, and the first batch", "| started again, and the first batch"} < set(starts)
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith(("| all", "| not"))]
    assert [row[:2] for row in rows] == [[name, n] for name in ("all of the training", "not random") for n in "01"]
    assert all(float(cell) > 0 for row in rows for cell in row[2:])
    assert len(list((tmp_path / "made").rglob("*.jpg"))) == 60


@pytest.mark.slow
def test_the_inspecting_benchmark_runs(root, tmp_path):
    done = run(root, tmp_path, "benchmark.py", "inspecting", "--files", "12", "--workers", "0,1", "--out", "table.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    assert [row[:2] for row in cells(done.stdout)[2:]] == [["0", "12"], ["1", "12"]]
    assert all(float(row[2]) > 0 for row in cells(done.stdout)[2:])


@pytest.mark.slow
def test_damaged_files_become_an_image_or_a_radiograph_error(root, tmp_path):
    done = run(root, tmp_path, "fuzz_reader.py", "--mutations", "150", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = {line.split()[-1]: int(line.split()[0]) for line in done.stdout.splitlines()[2:] if line.strip()}
    assert outcomes.keys() == {"image", "RadiographError"}
    assert sum(outcomes.values()) == 150


@pytest.mark.slow
def test_the_full_size_benchmark_runs_on_a_small_config(root, tmp_path):
    """From any folder; at its defaults it takes 2.7 billion weights, so the config is that of the default training."""
    done = run(root, tmp_path, "benchmark.py", "full_size", "--config_file", str(root / "configs" / "train.json"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^step 2: loss \d", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("the frozen weights are unchanged\n")


@pytest.mark.slow
def test_the_gpu_benchmark_runs_small_without_a_gpu(root, tmp_path):
    """But for the trainings that are killed, which have a script and a test of their own."""
    parts = ["step", "switches", "feeding", "exports", "decoding"]
    options = ["--parts", ",".join(parts), "--batch_size", "8", "--tokens", "6", "--repeats", "1"]
    done = run(root, tmp_path, "benchmark.py", "gpu", *options, "--small", "true", "--out", "gpu.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == ["name", "torch", *parts]
    assert not any("failed" in found[part] for part in parts), found
    rates = [found["step"], found["feeding"], *found["switches"].values(), *found["exports"].values()]
    assert all(part["images_per_second"] > 0 for part in rates if isinstance(part, dict) and "skipped" not in part)
    assert found["exports"]["torchscript"]["difference"] < 1e-5
    assert "decoder" in found["decoding"]["processor"]


@pytest.mark.slow
def test_the_cost_of_a_step_is_drawn_as_work_grows(root, tmp_path):
    options = ["--batches", "2,4,8", "--chunk_size", "4", "--shares", "0.5,1", "--processes", "1,2", "--repeats", "1"]
    tiny = ["--image_size", "28", "--image_backbone#image_size", "28", "--image_backbone#hidden_size", "24"]
    done = run(root, tmp_path, "benchmark.py", "growth", *options, "--tokens", "6", *tiny, "--out", "growth.svg")
    assert done.returncode == 0, done.stderr
    panels = json.loads((tmp_path / "growth.json").read_text())
    assert [panel["values"] for panel in panels] == [[2, 4, 8], [0.5, 1], [1, 2]]
    assert all(second > 0 for panel in panels for second in panel["seconds"])
    assert [panel["ideal"][0] / panel["ideal"][1] for panel in panels[:1]] == [0.5]
    assert [row[0] for row in cells(done.stdout) if row[0] not in ("---:",)][1:4] == ["2", "4", "8"]
    assert (tmp_path / "growth.svg").read_text().rstrip().endswith("</svg>")


@pytest.mark.slow
def test_the_bootstrap_benchmark_runs(root, tmp_path):
    options = ["--images", "400", "--findings", "3", "--resamples", "20", "--out", "table.md"]
    done = run(root, tmp_path, "benchmark.py", "bootstrap", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    assert done.stdout.startswith("400 images of 200 patients, 3 findings, 20 resamples, 9 groups")
    rows = cells(done.stdout)[2:]
    assert [row[0] for row in rows[-2:]] == ["all", "the whole report"]
    assert all(float(cell) >= 0 for row in rows for cell in row[1:])


@pytest.mark.slow
def test_the_coverage_of_intervals_is_simulated(root, tmp_path):
    options = ["--simulations", "3", "--resamples", "20", "--out", "table.md"]
    done = run(root, tmp_path, "simulate_coverage.py", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    rows = cells(done.stdout)
    assert len(rows) == 2 + 14
    documented = (root / "docs" / "statistics.md").read_text()
    assert "\n".join(done.stdout.splitlines()[:2]) in documented  # the table there is of these populations
    done = run(root, tmp_path, "simulate_coverage.py", "--simulations", "0")
    assert done.stderr.strip().splitlines()[-1].startswith("error: expected 1 simulation")


@pytest.mark.slow
def test_few_images_calibrate_better_with_a_penalty(root, tmp_path):
    done = run(root, tmp_path, "simulate_calibration.py", "--fits", "10", "--out", "table.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    head, _, *rows = cells(done.stdout)
    assert " | ".join(head) in (root / "docs" / "statistics.md").read_text()
    excess = {(row[0], row[1]): float(row[4]) for row in rows}
    assert len(excess) == 18
    assert all(excess[name, "penalised"] < excess[name, "plain"] for name, _ in excess)
    done = run(root, tmp_path, "simulate_calibration.py", "--fits", "0")
    assert done.stderr.strip().splitlines()[-1] == "error: expected 1 fit or more, got 0"


@pytest.mark.slow
def test_of_networks_whose_truth_is_known_the_truth_is_claimed(root, tmp_path):
    done = run(root, tmp_path, "simulate_networks.py", "--studies", "8", "--resamples", "100", "--out", "table.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    head, _, *rows = cells(done.stdout)
    assert " | ".join(head) in (root / "docs" / "statistics.md").read_text()
    found = {row[0]: dict(zip(head[1:], map(float, row[1:]), strict=True)) for row in rows}
    assert found["perfect"]["mean AUROC"] == found["perfect"]["recall@1"] == 1
    assert found["perfect"]["missed cases"] == found["perfect"]["false alarms"] == 0
    for name in ("useless", "collapsed"):
        assert found[name]["mean AUROC"] == pytest.approx(0.5, abs=0.03)
        assert found[name]["0.5 within the interval, %"] >= 80
        assert found[name]["recall@1"] == pytest.approx(found[name]["chance"], abs=0.004)
    done = run(root, tmp_path, "simulate_networks.py", "--studies", "0")
    assert done.stderr.strip().splitlines()[-1].startswith("error: expected 1 study")


@pytest.mark.slow
def test_a_killed_inference_ends_with_one_row_a_file(root, tmp_path):
    done = run(root, tmp_path, "interrupt_inference.py", "--files", "200", "--damaged", "0.05", "--kills", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    stops = re.search(r"^rows when killed: (\d+), (\d+), (\d+)$", done.stdout, re.MULTILINE)
    assert 50 <= int(stops[1]) < int(stops[2]) < int(stops[3]) < 200  # each was killed while it worked
    assert "rows at the end 200, of different files 200\nrows with a reason 10, " in done.stdout


@pytest.mark.slow
def test_the_inference_benchmark_serves_by_turns(root, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    sizes = ["--networks", "tiny,", "--batch_sizes", "2,", "--images", "4", "--rounds", "1", "--image_size", "28"]
    done = run(root, tmp_path, "benchmark.py", "inference", "--forms", "eager,onnx", *sizes, "--out", "table.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == done.stdout
    rows = cells(done.stdout)[2:]
    assert [row[1] for row in rows] == ["eager", "onnx"]
    assert rows[0][6] == rows[0][12] == "1.00"
    assert all(float(cell) > 0 for row in rows for cell in (row[3], row[7], row[8], row[13]))


@pytest.mark.slow
def test_the_exports_benchmark_compares_every_form(root, tmp_path, model_pt, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    monkeypatch.syspath_prepend(root / "scripts")
    exports = importlib.import_module("benchmarks.exports").exports
    findings = ["edema", "pleural effusion", "no finding"]
    lines = ["image,finding,patient_id,split"]
    (tmp_path / "images").mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        lines.append(f"images/{number}.png,{findings[number % 3]},p{number},valid")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    exports(str(tmp_path), str(model_pt), resamples=20)
    rows = cells(capsys.readouterr().out)[2:]
    exports(str(tmp_path / "images"), str(model_pt), out=str(tmp_path / "table.md"))
    written = (tmp_path / "table.md").read_text()
    unlabelled = cells(written)[2:]
    assert written == capsys.readouterr().out
    for table, columns in ((rows, 6), (unlabelled, 4)):
        assert [row[0] for row in table] == ["eager", "torchscript", "torch_export", "onnx", "onnx_int8"]
        assert [float(row[2]) < 1e-4 for row in table] == [True, True, True, True, False]
        assert [row[3] for row in table[:4]] == ["0"] * 4
        assert float(table[4][3]) < 50
        assert {len(row) for row in table} == {columns}
    assert [row[5].split()[0].lstrip("-") for row in rows[:4]] == ["0.0000"] * 4


@pytest.mark.slow
def test_a_training_that_is_killed_ends_as_one_that_was_not(root, tmp_path):
    done = run(
        root, tmp_path, "interrupt_training.py", "--kills", "1", "--epochs", "2", "--patients", "40", "--longest", "4"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    compared = re.search(r"values compared (\d+), of which differ 0: none", done.stdout)
    assert compared
    assert int(compared[1]) > 100


def test_strangers_are_counted_by_image_and_the_own_kind_by_patient(classifier, tmp_path):
    rng = np.random.default_rng(0)
    settings = {"task": "multilabel", "preprocessing": classifier.preprocessing}
    stored = ZeroShotClassifier(classifier.image_encoder, classifier.class_names, **settings)
    stored.load_state_dict(classifier.state_dict())
    save(stored.state_dict(), tmp_path / "model.pt")
    script = importlib.import_module("flag_strangers")
    with pytest.raises(BundleError, match="does not know which images are typical"):
        script.main(str(tmp_path / "model.pt"))
    (tmp_path / "own").mkdir()
    for number in range(20):
        slope = np.add.outer(np.arange(40), np.arange(40)) * 3 + rng.integers(0, 9, (40, 40))
        Image.fromarray(slope.astype(np.uint8)).save(tmp_path / "own" / f"{number}.png")
    found = Scorer(stored).score([{"image": p} for p in sorted((tmp_path / "own").iterdir())], embeddings=True)
    rows = np.repeat(found.embeddings, 3, axis=0)
    learn_typicality(stored, rows + 1e-3 * rng.normal(size=rows.shape), np.ones((60, 3)), None)
    save(stored.state_dict(), tmp_path / "model.pt")
    table = "".join(f"own/{number}.png,{number // 2}\n" for number in range(20))
    (tmp_path / "own.csv").write_text(f"image,patient_id\n{table}")
    pictures = {"strangers": {"same": str(tmp_path / "own")}, "pictures": str(tmp_path / "own")}
    told = cells(script.main(str(tmp_path / "model.pt"), str(tmp_path / "own.csv"), **pictures, made=4, cut=1))[2:]
    named = [(row[0].split()[0], int(row[1])) for row in told]
    assert named == [("held-out", 10), ("same", 20), ("photographs", 20), ("noise", 4), ("pages", 4)]
    assert float(told[0][2].split()[0]) <= 20
    assert float(told[-1][2].split()[0]) == 100


def test_coverage_of_conformal_sets_is_counted_on_the_other_half(model_pt, tmp_path):
    rng = np.random.default_rng(0)
    items = []
    for number in range(24):
        Image.fromarray(rng.integers(0, 255 - 5 * number, (40, 40)).astype(np.uint8)).save(tmp_path / f"{number}.png")
        items.append({"image": f"{number}.png", "patient_id": str(number // 2), "label": [1.0, number % 2, 0.0]})
    (tmp_path / "datalist.json").write_text(json.dumps({"validation": items}))
    script = importlib.import_module("conformal_coverage")
    told = cells(script.main(str(model_pt), str(tmp_path / "datalist.json"), str(tmp_path), divisions=5))[2:]
    assert [row[0] for row in told[:2]] == ["edema", "pleural effusion"]
    assert told[1][1:] == ["100.0", "100 to 100", "1.00"], "six images of a half rule nothing out"
    assert 60 <= float(told[0][1]) <= 100
