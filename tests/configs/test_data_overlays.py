"""Each overlay of a chest set trains on a miniature of the set with --dataset_dir alone."""

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from cleft_bundle.data.datasets import chexpert
from tests.configs.conftest import TINY
from tests.data.radiographs import make_dicom

pytestmark = pytest.mark.slow
COUNT = 24
SMALL = TINY | {"batch_size": 4, "tracking_uri": ""}


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 255, (40, 40), np.uint8)
    Image.fromarray(pixels).save(path)


def dicom(path, number, **elements):
    path.parent.mkdir(parents=True, exist_ok=True)
    make_dicom(path, PatientID=f"P{number}", StudyInstanceUID=f"1.3.{number}", **elements)
    ds = pydicom.dcmread(path)
    ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
    ds.save_as(path)


def write_chexpert(root):
    rows = []
    for number in range(COUNT):
        path = f"train/patient{number:05}/study1/view1_frontal.jpg"
        picture(root / path)
        known = {
            "Edema": number % 2,
            "Cardiomegaly": number % 3 == 0,
            "No Finding": number % 2 == 0,
            "Pneumothorax": -(number % 2),
        }
        row = {"Path": f"CheXpert-v1.0-small/{path}", "Sex": "Female", "Age": 50, "Frontal/Lateral": "Frontal"}
        rows.append(
            row | {"AP/PA": "AP"} | dict.fromkeys(chexpert.FINDINGS, "") | {k: float(v) for k, v in known.items()}
        )
    pd.DataFrame(rows).to_csv(root / "train.csv", index=False)


def write_nih(root):
    rows = []
    for number in range(COUNT):
        picture(root / "images" / f"{number:08}_000.png")
        findings = ("Effusion|Mass", "No Finding", "Nodule")[number % 3]
        rows.append({"Image Index": f"{number:08}_000.png", "Finding Labels": findings, "Patient ID": number})
    pd.DataFrame(rows).to_csv(root / "Data_Entry_2017_v2020.csv", index=False)


def write_rsna(root):
    rows = []
    for number in range(COUNT):
        dicom(root / "stage_2_train_images" / f"case{number}.dcm", number)
        box = {"x": 1, "y": 2, "width": 3, "height": 4} if number % 2 else {}
        rows.append({"patientId": f"case{number}"} | dict.fromkeys(("x", "y", "width", "height"), "") | box)
        rows[-1]["Target"] = number % 2
    pd.DataFrame(rows).to_csv(root / "stage_2_train_labels.csv", index=False)


def write_openi(root):
    (root / "ecgen-radiology").mkdir()
    for number in range(COUNT):
        picture(root / "NLMCXR_png" / f"CXR{number}_IM-0001-1001.png")
        heading, text = (("normal", "Clear lungs."), ("Cardiomegaly/mild", "The heart is large."))[number % 2]
        (root / "ecgen-radiology" / f"{number}.xml").write_text(
            f'<eCitation><pmcId id="{number}"/><AbstractText Label="FINDINGS">{text}</AbstractText>'
            f'<AbstractText Label="IMPRESSION">Case {number}.</AbstractText><MeSH><major>{heading}</major></MeSH>'
            f'<parentImage id="CXR{number}_IM-0001-1001"/></eCitation>'
        )


def write_dicom_dir(root):
    for number in range(COUNT):
        dicom(root / f"export{number}" / "IM1", number, ViewPosition=("PA", "LL")[number % 2])


WRITERS = {
    "chexpert": write_chexpert,
    "nih": write_nih,
    "rsna": write_rsna,
    "openi": write_openi,
    "dicom_dir": write_dicom_dir,
}


#: Values of an overlay that are not their defaults.
VALUES = {"chexpert": {"uncertain": "separate", "frontal_only": False}, "rsna": {"headers": True}}


@pytest.mark.parametrize("name", WRITERS)
def test_an_overlay_trains_with_its_folder_alone(name, run_config, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    WRITERS[name](root)
    trained = run_config(
        ["train.json", f"data_{name}.json"], "training", dataset_dir=str(root), **SMALL, **VALUES.get(name, {})
    )
    assert len(trained.parser.get_parsed_content("items")) == COUNT
    assert (tmp_path / "models" / "model.pt").is_file()


@pytest.mark.shared_data
def test_nih_at_64_pixels_trains_and_evaluates_by_many_labels(run_config, shared_data, tmp_path):
    files, data = ["train.json", "data_nih.json"], {"dataset_dir": str(shared_data / "data" / "nih64")}
    small = SMALL | {"batch_size": 64, "image_backbone#hidden_size": 24, "image_backbone#num_attention_heads": 3}
    trained = run_config(files, "training", **data, **small)
    assert trained.parser.get_parsed_content("task") == "multilabel"
    splits = trained.parser.get_parsed_content("splits")
    patients = [{item["patient_id"] for item in part} for part in splits.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 264
    tested = run_config([*files, "evaluate.json"], "evaluating", evaluate_split="test", **data, **small)
    metrics = tested.parser.get_parsed_content("validate#evaluator").state.metrics
    assert 0.0 <= metrics["zero_shot_auroc"] <= 1.0
