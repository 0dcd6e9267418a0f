import json

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleft_bundle.apps.monai_label.lib.trainers.labelled import (
    Labelled,
    divide,
    labelled_items,
    read_sides,
    write_sides,
)
from cleft_bundle.data import phantoms, pseudonym
from cleft_bundle.errors import BundleError

NAMES = ["edema", "pleural effusion", "no finding"]


def labelled(tmp_path, image, present, info=None, file=None):
    path = tmp_path / f"{image}.json"
    path.write_text(json.dumps({"classification": present}))
    return Labelled(image, str(file or tmp_path / f"{image}.png"), str(path), info or {})


def test_items_hold_labels_and_pseudonyms(tmp_path, caplog):
    images = [
        labelled(tmp_path, "b", ["pleural effusion", "edema"], {"patient_id": "Smith"}),
        labelled(tmp_path, "a", [], {"PatientID": "UNK"}),
        labelled(tmp_path, "c", "no finding", {"PatientID": " Smith "}),
    ]
    items = {item["name"]: item for item in labelled_items(images, NAMES, "multilabel")}
    assert list(items) == sorted(pseudonym(name) for name in "abc")
    first, second, third = (items[pseudonym(name)] for name in "bac")
    assert (first["label"], first["caption"]) == ([1.0, 1.0, 0.0], "edema, pleural effusion")
    assert (second["label"], second["caption"]) == ([0.0, 0.0, 0.0], "no finding")
    assert first["patient_id"] == third["patient_id"] == pseudonym("Smith")
    assert second["patient_id"] == second["name"]
    assert "1 of 3 labelled images name no patient" in caplog.text
    assert not any("Smith" in str(item) for item in items.values())


def test_the_patient_of_a_dicom_file_is_read_from_its_header(tmp_path):
    phantoms.chest(str(tmp_path / "phantoms"), patients=5, seed=0)
    files = sorted((tmp_path / "phantoms").rglob("*.dcm"))
    assert files
    items = labelled_items([labelled(tmp_path, str(n), [], file=f) for n, f in enumerate(files)], NAMES, "multilabel")
    expected = {pseudonym(str(n)): pseudonym(str(pydicom.dcmread(f).PatientID)) for n, f in enumerate(files)}
    assert {item["name"]: item["patient_id"] for item in items} == expected


def test_a_label_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"label .*a\.json: class 'oedema' is unknown"):
        labelled_items([labelled(tmp_path, "a", ["oedema"])], NAMES, "multilabel")


def items_of(classes, images_a_patient=1):
    """One item an entry; patients have several images of one class."""
    return [
        {
            "image": f"{number}.png",
            "name": f"{number:04d}",
            "patient_id": pseudonym(str(number // images_a_patient)),
            "label": [float(place == kind) for place in range(3)],
            "caption": NAMES[kind],
        }
        for number, kind in enumerate(classes)
    ]


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=30, max_size=60), st.integers(0, 5))
def test_the_split_keeps_patients_together_and_every_class_in_training(classes, seed):
    classes = sorted(classes + [0] * 6 + [1] * 6 + [2] * 6)
    items = items_of(classes, 2)
    splits = divide(items, NAMES, "multiclass", 0.3, seed)
    patients = {split: {item["patient_id"] for item in members} for split, members in splits.items()}
    assert not patients["train"] & patients["validation"]
    assert sorted(item["name"] for members in splits.values() for item in members) == [item["name"] for item in items]
    total = len(patients["train"] | patients["validation"])
    assert abs(len(patients["validation"]) - 0.3 * total) <= 2
    for place in range(3):
        assert any(item["label"][place] for item in splits["train"])


def test_a_patient_stays_on_its_side_when_labels_are_added(tmp_path, caplog):
    path = tmp_path / "split.json"
    assert read_sides(path) == {}
    first = divide(items_of([0, 1, 2] * 7), NAMES, "multiclass", 0.3)
    write_sides(first, path)
    second = divide(items_of([0, 1, 2] * 20), NAMES, "multiclass", 0.3, before=read_sides(path))
    for split in ("train", "validation"):
        assert {item["name"] for item in first[split]} < {item["name"] for item in second[split]}
    assert abs(len(second["validation"]) - 18) <= 2
    write_sides({"train": items_of([0])}, path)
    assert len(read_sides(path)) == 21, "those without a label now are not forgotten"
    path.write_text("[]")
    assert read_sides(path) == {}
    assert "split.json cannot be read: patients are divided anew" in caplog.text


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        ([0] * 9 + [1] * 9, {}, "18 labelled images are too few: .* 2 patients or more, no finding has none"),
        ([0] * 9 + [1] * 9 + [2], {}, "no finding has 1$"),
        ([], {}, "0 labelled images are too few: .*edema has none, pleural effusion has none, no finding has none"),
        ([0, 1, 2] * 9, {"val_split": 1.0}, r"val_split=1.0: expected a share"),
        ([0, 1, 2] * 2, {"val_split": 0.1}, "have all the same label: label more, or choose a larger val_split"),
    ],
)
def test_too_few_labels_are_one_error_that_names_the_class(classes, options, message):
    with pytest.raises(BundleError, match=message):
        divide(items_of(classes), NAMES, "multiclass", **{"val_split": 0.3} | options)


def test_a_finding_that_every_image_has_cannot_be_learnt():
    items = [{**item, "label": [1.0, *item["label"][1:]]} for item in items_of([1, 2] * 10)]
    with pytest.raises(BundleError, match="images to train on: none without edema; label more of them"):
        divide(items, NAMES, "multilabel", 0.3)


def test_a_rare_finding_is_always_among_what_is_trained_on():
    for seed in range(20):
        splits = divide(items_of([0] * 9 + [1] * 9 + [2] * 2), NAMES, "multiclass", 0.7, seed)
        assert {tuple(item["label"]) for item in splits["train"]} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
