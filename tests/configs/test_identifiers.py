"""No patient's identifier leaves the file that holds it: every place that the bundle writes to is searched."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, keyword_for_tag

from cleft_bundle.data.dicom.header import ELEMENTS
from tests.configs.conftest import TINY
from tests.data.radiographs import make_dicom

pytestmark = pytest.mark.slow
TEXT = {"PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE"}  # value representations that take free text
SECRETS = ("CANARY", "19470313", "2.25.987654321", "471103.5")
SHARED = {"SeriesDescription": "CANARY PA", "PatientID": "CANARY-ID", "StudyInstanceUID": "2.25.9876543210"}


def with_canaries(path, number, **elements):
    """A chest radiograph whose every text, date, time and identifier is a canary, but for its maker's name."""
    make_dicom(path, (np.arange(3600).reshape(60, 60) * (number + 1) % 4096).astype(np.uint16), **elements)
    ds = pydicom.dcmread(path)
    for tag, (vr, multiplicity, *_) in DicomDictionary.items():
        name = keyword_for_tag(tag)
        if tag >> 16 in (0, 2, 4) or not name or name in ELEMENTS or tag in ds or "SOPClassUID" in name:
            continue
        value = {"DA": "19470313", "TM": "471103.5", "DT": "19470313471103.5", "UI": "2.25.9876543210"}.get(vr)
        if vr in TEXT:
            value = "CANARY"
        if value and multiplicity[0] == "1":
            ds.add_new(tag, vr, value)
    for name, value in SHARED.items():
        setattr(ds, name, value if name != "PatientID" else f"{value}-{number}")
    with pydicom.config.disable_value_validation():
        ds.save_as(path)
    assert sum(str(element.value) == "CANARY" for element in ds) > 500


@pytest.fixture
def folder(tmp_path):
    """A hospital's folder: files without names in them, but with a table that holds identifiers."""
    target = tmp_path / "data"
    target.mkdir()
    rows = []
    for number in range(48):
        with_canaries(target / f"{number}.dcm", number)
        rows.append(
            {
                "image": f"{number}.dcm",
                "finding": ("effusion", "no finding")[number % 2],
                "patient_id": f"CANARY-ID-{number}",
                "study_id": f"CANARY-STUDY-{number}",
            }
        )
    for text in (b"CANARY: no image at all", b"\0" * 128 + b"DICM" + b"CANARY" * 20):
        (target / f"broken{len(text)}.dcm").write_bytes(text)
    pd.DataFrame(rows).to_csv(target / "labels.csv", index=False)
    return target


def leaks(content):
    return [secret for secret in SECRETS if secret.encode() in content]


def test_no_identifier_reaches_any_sink(run_config, folder, tmp_path, caplog, capfd, recwarn):
    data = {"dataset_dir": str(folder)}
    trained = run_config(
        ["train.json", "data_folder.json"],
        "training",
        **(TINY | data | {"cache_dir": str(tmp_path / "cache"), "batch_size": 8}),
    )
    first = trained.train_dataset[0]
    item = {key: value for key, value in first.items() if key != "image"}
    run_config(
        ["train.json", "data_folder.json", "evaluate.json"],
        "evaluating",
        **(TINY | data | {"resamples": 20, "tracking_uri": ""}),
    )
    model = str(tmp_path / "models" / "model.pt")
    run_config(["inference.json"], model_path=model, **data)
    table = json.loads((tmp_path / "eval" / "predictions.json").read_text())
    assert len([row for row in table["predictions"] if row.get("error")]) >= 2

    written = [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents]
    kinds = {path.suffix for path in written} | {part for path in written for part in Path(path).parts}
    assert kinds >= {".pt", ".csv", ".json", ".html", ".db", ".png", "cache", "eval", "models"}
    found = {str(path.relative_to(tmp_path)): leaks(path.read_bytes()) for path in written}
    assert {name: secrets for name, secrets in found.items() if secrets} == {}
    assert leaks(" ".join(str(path) for path in written).encode()) == []

    said = caplog.text + "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in recwarn)
    assert leaks(said.encode()) == []
    assert leaks(repr(item).encode()) == []
    assert len({row["patient_id"] for row in trained.parser.get_parsed_content("items")}) == 48
