"""What is written of heat maps: which findings, under which names, and with what beside the picture."""

import logging

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from cleft_bundle.data.dicom.results import ResultSource
from cleft_bundle.data.phantoms.dicom import Header, write
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from cleft_bundle.inference import HeatMapWriter, PredictionJournal
from cleft_bundle.inference.heat_overlay import heat_overlay
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.networks.heat_maps import SCALE, UNIT
from cleft_bundle.transforms import build_transforms

MODEL = ResultSource("CLEFT zero-shot classifier", "1.2.3", "0123456789abcdef" * 4)
NAMES = ["edema", "pleural effusion", "no finding"]
THRESHOLDS = {"edema": 0.5, "pleural effusion": 0.4, "no finding": 0.1}


@pytest.fixture
def file(tmp_path):
    """An image, under a name that must not leave."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (30, 50), np.uint8)).save(tmp_path / "Doe^Jane.png")
    return str(tmp_path / "Doe^Jane.png")


@pytest.fixture
def make(classifier, tmp_path):
    """Build a writer of a copy of the small classifier with other names, task, thresholds or weights."""

    def build(file, names=NAMES, task="multilabel", thresholds=None, weights=None, **options):
        network = ZeroShotClassifier(classifier.image_encoder, names, task, classifier.preprocessing)
        network.class_weights = torch.randn(len(names), 16, generator=torch.Generator().manual_seed(0))
        network.logit_scale = torch.tensor(3.0)
        network.calibrate(1.0, [0.0] * len(names), THRESHOLDS if thresholds is None else thresholds)
        if weights is not None:
            network.class_weights *= weights
        journal = PredictionJournal(tmp_path / "journal.jsonl", {})
        journal.pending([{"image": file, "path": "listed"}])
        transforms = build_transforms(network.preprocessing["transforms"])
        return HeatMapWriter(str(tmp_path / "eval"), network.eval(), transforms, MODEL, journal, **options)

    return build


def written(tmp_path, folder="heat_maps"):
    return sorted(path.name for path in (tmp_path / "eval" / folder).glob("*"))


@pytest.mark.parametrize(
    ("scores", "kinds"),
    [
        ([0.5, 0.3, 0.9], ["1_edema"]),  # at the threshold
        ([0.499, 0.9, 0.9], ["2_pleural_effusion"]),
        ([0.6, 0.4, 0.0], ["1_edema", "2_pleural_effusion"]),
        ([0.49, 0.39, 0.9], []),  # the highest finding is not called
    ],
)
def test_maps_are_drawn_of_called_findings_only(make, file, tmp_path, scores, kinds):
    make(file).write("listed", scores)
    assert written(tmp_path) == [f"{pseudonym(file)}_{kind}.png" for kind in kinds]


@pytest.mark.parametrize(
    ("scores", "kinds"),
    [([0.4, 0.3, 0.3], ["1_edema"]), ([0.2, 0.3, 0.5], []), ([0.1, 0.5, 0.4], ["2_pleural_effusion"])],
)
def test_of_classes_that_exclude_each_other_the_call_is_drawn(make, file, tmp_path, scores, kinds):
    make(file, task="multiclass", thresholds={"edema": 0.9}).write("listed", scores)
    assert written(tmp_path) == [f"{pseudonym(file)}_{kind}.png" for kind in kinds]


@pytest.mark.parametrize(
    ("findings", "places"),
    [("all", [1, 2]), ("edema", [1]), (["pleural effusion", "no finding", "pleural effusion"], [2, 3])],
)
def test_others_are_drawn_where_they_are_asked_for(make, file, tmp_path, findings, places):
    make(file, findings=findings).write("listed", [0.0, 0.0, 0.0])
    assert [int(name.split("_")[1]) for name in written(tmp_path)] == places


def test_classes_that_are_called_as_options_are(make, file, tmp_path):
    names = ["all", "called", "class:all", "none"]
    for findings, kinds in (("class:all", ["1_all"]), (["class:class:all", "none"], ["3_class_all", "4_none"])):
        make(file, names, findings=findings).write("listed", [0.0] * 4)
        assert written(tmp_path) == [f"{pseudonym(file)}_{kind}.png" for kind in kinds]
        for path in (tmp_path / "eval" / "heat_maps").iterdir():
            path.unlink()


@pytest.mark.parametrize("findings", ["edma", ["edema", "all"], [], 3, "class:edema"])
def test_what_is_no_class_is_refused_before_anything_is_scored(make, file, findings):
    with pytest.raises(BundleError, match="heat_map_findings: expected"):
        make(file, findings=findings)


def test_names_of_files_keep_what_every_file_system_takes(make, file, tmp_path):
    names = ["../a/b", "a b", "肺炎", "x" * 300, 'con:*?"<>|\n', "A B"]
    make(file, names, findings="all").write("listed", [0.1] * 6)
    kinds = ["1_a_b", "2_a_b", "3", f"4_{'x' * 40}", "5_con", "6_A_B"]
    assert written(tmp_path) == [f"{pseudonym(file)}_{kind}.png" for kind in kinds]
    for name, path in zip(names, sorted((tmp_path / "eval" / "heat_maps").iterdir()), strict=True):
        with Image.open(path) as picture:
            assert picture.text["Finding"] == name


def test_the_picture_says_what_it_shows(make, file, tmp_path):
    make(file).write("listed", [0.834, 0.2, 0.1])
    (path,) = (tmp_path / "eval" / "heat_maps").iterdir()
    with Image.open(path) as picture:
        assert picture.width >= 400  # where 50 pixels would hold no text
        texts = dict(picture.text)
    assert texts.pop("Strongest").endswith(UNIT)
    assert texts == {
        "Title": "heat map of edema",
        "Finding": "edema",
        "Score": "0.834",
        "Threshold": "0.500",
        "Call": "called",
        "Scale": f"0 to {SCALE:g} {UNIT}",
        "Method": "attention",
        "Software": "cleft_bundle 1.2.3",
        "Model": f"SHA-256 {MODEL.sha256}",
    }
    assert b"Doe" not in path.read_bytes()


@pytest.mark.parametrize(
    ("score", "threshold", "said"),
    [
        (0.1, 0.5, ["0.100", "0.500", "not called"]),
        (0.4999, 0.5, ["0.4999000", "0.5000000", "not called"]),
        (0.2, None, ["0.200", None, "not called, no threshold"]),
    ],
)
def test_a_score_below_its_threshold_is_said_to_be(make, file, tmp_path, score, threshold, said):
    thresholds = {} if threshold is None else {"edema": threshold}
    make(file, findings="edema", thresholds=thresholds).write("listed", [score, 0.0, 0.0])
    (path,) = (tmp_path / "eval" / "heat_maps").iterdir()
    with Image.open(path) as picture:
        assert [picture.text.get(key) for key in ("Score", "Threshold", "Call")] == said


def test_all_maps_have_one_scale(make, file, tmp_path):
    """A map a thousand million times as weak is empty, and not the same picture."""
    strong = make(file, findings="all", scale=0.01).draw(file, NAMES[:2], dict.fromkeys(NAMES, 0.6))
    weak = make(file, findings="all", scale=0.01, weights=1e-9).draw(file, NAMES[:2], dict.fromkeys(NAMES, 0.6))
    grey = np.asarray(Image.open(file)).astype(np.float32)
    bare = heat_overlay(grey, np.zeros((30, 50)))
    for (_, picture, _), (_, faint, texts) in zip(strong, weak, strict=True):
        enlarged = np.asarray(Image.fromarray(bare).resize((picture.shape[1], -(-30 * picture.shape[1] // 50)), 3))
        part = (slice(0, len(enlarged)), slice(0, picture.shape[1]))
        np.testing.assert_allclose(faint[part].astype(int), enlarged, atol=2)
        assert np.ptp(picture[part].astype(int), axis=2).max() > 20
        assert float(texts["Strongest"].split()[0]) < 1e-8
    assert make(file).scale == SCALE


def test_the_log_counts_images_without_a_called_finding(make, file, caplog):
    with caplog.at_level(logging.INFO):
        writer = make(file)
        writer.write("listed", [0.0, 0.0, 0.9])
        writer._report()
        undecided = make(file, thresholds={})
        undecided.write("listed", [0.9, 0.9, 0.9])
        undecided._report()
    assert "heat maps: 0 drawn; 1 images have none: no finding is called" in caplog.text
    assert "the classifier has no thresholds; --heat_map_findings names findings, or all" in caplog.text


def test_maps_of_an_earlier_run_go_when_their_image_is_scored_anew(make, file, tmp_path):
    folder = tmp_path / "eval" / "heat_maps"
    make(file).write("listed", [0.9, 0.9, 0.0])
    for name in (f"{pseudonym(file)}.png", "0123456789abcdef_1_edema.png"):
        (folder / name).write_bytes(b"")
    writer = make(file)
    writer._find_older()
    writer.write("listed", [0.9, 0.0, 0.0])
    assert written(tmp_path) == sorted([f"{pseudonym(file)}_1_edema.png", "0123456789abcdef_1_edema.png"])


def test_captures_say_the_same_as_pictures(make, tmp_path):
    pytest.importorskip("highdicom", reason="needs the extra: pip install 'cleft_bundle[sr]'")
    rng = np.random.default_rng(0)
    source = tmp_path / "image.dcm"
    write(source, rng.random((40, 30)), Header("chest", 1, 1, 1, 0, "F", 50, "20200101", "PA"), rng)
    names = ["edema \\ oedema\n(lung)", "肺炎" + "x" * 2000]
    writer = make(str(source), names, thresholds=dict.fromkeys(names, 0.5), dicom=True)
    writer.write("listed", [0.834, 0.75])
    captures = [pydicom.dcmread(path) for path in sorted((tmp_path / "eval" / "secondary_captures").iterdir())]
    pictures = [Image.open(path) for path in sorted((tmp_path / "eval" / "heat_maps").iterdir())]
    assert [capture.InstanceNumber for capture in captures] == [1, 2]
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1
    assert {capture.SeriesDescription for capture in captures} == {"cleft_bundle: heat maps"}
    for capture, picture in zip(captures, pictures, strict=True):
        np.testing.assert_array_equal(capture.pixel_array, np.asarray(picture))
        assert len(capture.DerivationDescription) <= 1024
        for key in ("Score", "Threshold", "Call", "Strongest", "Scale"):
            assert picture.text[key] in capture.DerivationDescription
        assert MODEL.sha256 in capture.DerivationDescription
    assert captures[0].DerivationDescription.startswith("heat map of edema   oedema (lung); score 0.834")
