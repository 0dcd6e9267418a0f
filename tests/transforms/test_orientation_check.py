import csv
import importlib.util

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from cleft_bundle.data.images.turns import TURNS
from cleft_bundle.errors import RadiographError
from cleft_bundle.transforms import OrientRadiograph, OrientRadiographd, seen_turn
from cleft_bundle.transforms.orientation_check import chest_cells
from tests import processes
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "check_orientation.py"
INVERSE = {name: name for name in TURNS} | {"rotate 90": "rotate 270", "rotate 270": "rotate 90"}


def moved(image, name):
    turned = torch.rot90(image, TURNS[name].quarters, (1, 2))
    return turned.flip(-1) if TURNS[name].mirror else turned


def drawn_chest(shape=(96, 80)):
    """Lungs, spine, belly and shoulders, and a heart towards the right of the picture."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    y, x = rows / shape[0], columns / shape[1]
    image = 0.3 + 0.3 * (y > 0.75) + 0.25 * (np.abs(x - 0.5) < 0.06)
    for middle in (0.28, 0.72):
        image = np.where(((y - 0.45) / 0.3) ** 2 + ((x - middle) / 0.15) ** 2 < 1, 0.1, image)
    image = np.where(((y - 0.6) / 0.14) ** 2 + ((x - 0.6) / 0.16) ** 2 < 1, 0.7, image)
    return torch.from_numpy(np.where((y < 0.15) & (np.abs(x - 0.5) > 0.2), 0.05, image))[None].float()


@pytest.mark.parametrize("name", TURNS)
def test_a_drawn_chest_is_seen_in_all_its_turns(name):
    assert seen_turn(moved(drawn_chest(), name)) == INVERSE[name]
    assert seen_turn(moved(drawn_chest(), name).to(torch.bfloat16) * 40) == INVERSE[name]


@pytest.mark.parametrize("name", TURNS)
def test_a_drawn_breast_is_seen_in_all_its_turns(name, draw_mammogram):
    image = draw_mammogram((200, 150)).tensor
    above, outer = torch.arange(200)[None, :, None] < 80, torch.arange(150)[None, None] > 45
    hanging = image.masked_fill(above & outer, 0)
    assert seen_turn(moved(hanging, name), breast=True) == INVERSE[name]
    walls = {TURNS[seen_turn(moved(hanging, name), True, True)].directions("F", "L")[1]}
    assert walls == {TURNS[INVERSE[name]].directions("F", "L")[1]}


@pytest.mark.shared_data
@pytest.mark.parametrize(("folder", "turn", "both"), [("nih448", 0.97, 0.75), ("cxr_text", 0.95, 0.78)])
def test_real_chests_are_told_as_often_as_the_page_says(folder, turn, both, shared_data):
    """Of NIH's sample the patients that the tables were not made of; no image of the other set was."""
    root = shared_data / "data" / folder
    table = list(csv.DictReader((root / "labels.csv").open()))
    if folder == "nih448":
        fitted = set(sorted({row["patient_id"] for row in table})[::2])
        table = [row for row in table if row["patient_id"] not in fitted]
    told = []
    for row in table[:: 2 - (folder == "cxr_text")]:
        with Image.open(root / row["image"]) as picture:
            grey = np.asarray(picture.convert("L").resize((128, 128), Image.Resampling.BOX), np.float32)
        told.append(seen_turn(torch.from_numpy(grey.copy())[None]))
    assert len(told) > 40
    assert np.mean([name in ("none", "flip columns") for name in told]) >= turn
    assert np.mean([name == "none" for name in told]) >= both


def test_what_is_seen_is_reported_and_not_applied(draw_mammogram):
    image = MetaTensor(moved(drawn_chest(), "rotate 90"), meta={"modality": "DX"})
    out = OrientRadiograph()(image)
    torch.testing.assert_close(out.as_tensor(), image.as_tensor())
    assert (out.meta["orientation_applied"], out.meta["orientation_seen"]) == ("not given", "rotate 270")
    image.meta["patient_orientation"] = "L\\F"
    assert OrientRadiograph()(image).meta["orientation_seen"] == ""
    blank = MetaTensor(torch.ones(1, 9, 9))
    assert OrientRadiograph()(blank).meta["orientation_seen"] == ""
    breast = MetaTensor(draw_mammogram(chest_wall="right").tensor)
    seen = OrientRadiographd("image", breast=True)({"image": breast})["image"].meta["orientation_seen"]
    assert TURNS[seen].directions("F", "L")[1] == "R"  # the wall comes from the right to the left


def test_an_image_without_content_is_an_error_with_its_name():
    with pytest.raises(RadiographError, match=r"^scan.dcm: holds one value only, 1: it cannot be told how it lies"):
        seen_turn(MetaTensor(torch.ones(1, 9, 9), meta={"filename_or_obj": "scan.dcm"}))


def test_cells_turn_with_the_image():
    image = torch.rand(1, 70, 90, generator=torch.Generator().manual_seed(0))
    for name in ("rotate 90", "flip columns"):
        turned = moved(torch.from_numpy(chest_cells(image).copy())[None], name)[0]
        np.testing.assert_allclose(chest_cells(moved(image, name)), turned, atol=1e-3)
    assert chest_cells(image).mean() == pytest.approx(0)


@pytest.mark.slow
def test_the_script_measures_and_fits(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["image,patient_id"]
    for number in range(6):
        noisy = drawn_chest()[0].numpy() + 0.05 * rng.standard_normal((96, 80))
        Image.fromarray((noisy.clip(0, 1) * 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    measured = processes.run([SCRIPT, "measure", tmp_path], check=True).stdout
    rows = [line.strip("| ").split(" | ") for line in measured.splitlines()[2:]]
    assert [row[0] for row in rows] == list(TURNS)
    assert {value for row in rows for value in row[1:]} == {"1.000"}
    fitted = processes.run([SCRIPT, "fit", tmp_path], check=True).stdout
    tables = dict(line.split(" = ") for line in fitted.splitlines())
    assert {name: np.shape(eval(text)) for name, text in tables.items()} == {"UPRIGHT": (8, 4), "SIDES": (8, 4)}  # noqa: S307
    wrong = processes.run([SCRIPT, "measure", "/nowhere"])
    assert wrong.stderr.strip().splitlines()[-1] == "error: /nowhere/labels.csv does not exist"


def test_the_script_s_idea_of_a_turn_is_that_of_the_transform():
    spec = importlib.util.spec_from_file_location("check_orientation", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    image = torch.rand(1, 5, 7)
    for name, turn in TURNS.items():
        expected = OrientRadiograph()(image, turn=name)
        torch.testing.assert_close(script.apply(image, turn), expected.as_tensor())
        assert script._back(turn) == INVERSE[name]
