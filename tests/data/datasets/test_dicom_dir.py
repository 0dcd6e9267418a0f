import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from cleft_bundle.data import check_items
from cleft_bundle.data.captions.prompts import PromptSet, load_prompts
from cleft_bundle.data.datasets import dicom_dir
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from tests.data.radiographs import PHI, make_dicom

PROMPTS = load_prompts(Path(__file__).parents[3] / "configs" / "prompts" / "dicom_dir.json")
WORDS = PromptSet(
    ("a {modality}", "of the {side} side", "in {view} view", "of a {sex}", "aged {age}", "with {findings}"),
    PROMPTS.classes,
)


def write(path, uid, **elements):
    """A file of the given SOP instance, without the suffix that would give it away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_dicom(path, **{**PHI, "SOPInstanceUID": uid, **elements})
    ds = pydicom.dcmread(path)
    ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.save_as(path)


@pytest.fixture
def root(tmp_path):
    """An export as it comes: a folder per patient, named after the patient, and files of other kinds among them."""
    chest = tmp_path / "CANARY^NAME" / "study1"
    write(chest / "IM000001", "1.2.1", ViewPosition="PA", PatientSex="M", PatientAge="093Y", Manufacturer="Acme")
    write(chest / "IM000002", "1.2.2", ViewPosition="LL", Modality="CR", PatientSex="O")
    breast = tmp_path / "other" / "export"
    mammogram = {"Modality": "MG", "ViewPosition": "MLO", "ImageLaterality": "L", "PatientID": "CANARY-2"}
    write(breast / "x.jpg", "1.2.3", StudyInstanceUID="1.2.3.4", **mammogram)
    write(breast / "copy", "1.2.3", StudyInstanceUID="1.2.3.4", **mammogram)
    write(breast / "raw", "1.2.4", PresentationIntentType="FOR PROCESSING", **mammogram)
    write(breast / "tomo", "1.2.5", NumberOfFrames=3, PixelData=np.zeros(3 * 48 * 32, np.uint16).tobytes(), **mammogram)
    write(breast / "ct", "1.2.6", Modality="CT")
    write(breast / "report", "1.2.7", Modality="SR", Rows=None, Columns=None, PixelData=None)
    (breast / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"CANARY" * 20)
    (breast / "readme.dcm").write_text("CANARY")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    return tmp_path


def test_items_of_an_export(root, caplog, recwarn):
    caplog.set_level(logging.INFO)
    items = sorted(dicom_dir.datalist(root, prompts=PROMPTS), key=lambda item: item["image"])
    assert [item["caption"] for item in items] == [
        "this is a radiograph in the posteroanterior view",
        "this is a radiograph in the lateral view",
        "this is a mammogram of the left side in the mediolateral oblique view",
    ]
    patient, study = pseudonym("CANARY-ID"), pseudonym(PHI["StudyInstanceUID"])
    assert items[0] == {
        "image": str(root / "CANARY^NAME" / "study1" / "IM000001"),
        "name": f"{patient}/{study}/{pseudonym('1.2.1')}.dcm",
        "caption": items[0]["caption"],
        "findings": {name: float(name == "posteroanterior") for name in PROMPTS.classes},
        "label": [1.0, 0.0, 0.0, 0.0, 0.0],
        "patient_id": patient,
        "study_id": study,
        "split": None,
        "modality": "DX",
        "view": "PA",
        "view_source": "tag",
        "sex": "M",
        "age": 90.0,
        "manufacturer": "other",
    }
    assert (items[2]["laterality"], items[2]["patient_id"]) == ("L", pseudonym("CANARY-2"))
    assert "sex" not in items[1]
    for said in (
        "10 files, 3 items",
        "1 second copies",
        "1 for processing",
        "1 of several frames",
        "1 of other modalities",
        "2 without an image",  # the report, and the file that ends behind its preamble
        "1 without DICOM's preamble",
    ):
        assert said in caplog.text
    check_items(items, list(PROMPTS.classes))
    shown = json.dumps([{key: value for key, value in item.items() if key != "image"} for item in items])
    assert "CANARY" not in shown + caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert "1.2.3" not in shown


def test_words_of_the_header(root):
    captions = {item["caption"] for item in dicom_dir.datalist(root, prompts=WORDS)}
    assert captions == {
        "a radiograph in posteroanterior view of a male aged 90",
        "a radiograph in lateral view",
        "a mammogram of the left side in mediolateral oblique view",
    }


def test_other_modalities_on_request(root):
    assert [i["modality"] for i in dicom_dir.datalist(root, prompts=PROMPTS, modalities=["CT"])] == ["CT"]
    with pytest.raises(BundleError, match=r"none of 10 files is a radiograph; left out: .*of other modalities"):
        dicom_dir.datalist(root, prompts=PROMPTS, modalities=["NM"])


@pytest.mark.parametrize(
    ("elements", "age"),
    [
        ({"PatientAge": "006M"}, 0.5),
        ({"PatientAge": "44"}, 44.0),
        ({"PatientAge": "100Y"}, 90.0),
        ({"PatientAge": "155Y"}, None),
        ({"PatientAge": "CANARY"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_ages_of_headers(tmp_path, elements, age, syntax, recwarn):
    with pydicom.config.disable_value_validation():
        make_dicom(tmp_path / "x", syntax=syntax, ViewPosition="AP", **elements)
    (item,) = dicom_dir.datalist(tmp_path, prompts=PROMPTS)
    assert item.get("age") == age
    assert not any("CANARY" in str(warning.message) for warning in recwarn)


def test_images_without_identifiers_are_patients_of_their_own(tmp_path):
    for number in (1, 2):
        write(tmp_path / f"{number}", f"1.{number}", PatientID="", StudyInstanceUID=None, ViewPosition="AP")
    items = dicom_dir.datalist(tmp_path, prompts=PROMPTS)
    assert len({item["patient_id"] for item in items}) == 2
    assert items[0]["patient_id"] == items[0]["study_id"]


@pytest.mark.parametrize("key", ["sop_instance_uid", "image"])
def test_a_table_of_labels(root, caplog, key):
    rows = {"sop_instance_uid": ["1.2.1", "1.2.2", "1.99"], "image": ["CANARY^NAME/study1/IM000001", "IM000002", "no"]}
    table = pd.DataFrame({key: rows[key], "finding": ["Edema|Mass", "no finding", "edema"]})
    table.to_csv(root / "labels.csv", index=False)
    prompts = PromptSet(("a {modality}", "with {findings}"), {"edema": ["a"], "no finding": ["b"], "lateral": ["c"]})
    items = sorted(dicom_dir.datalist(root, prompts=prompts), key=lambda item: item["image"])
    expected = ["a radiograph with edema, mass", "a radiograph with no finding", "a mammogram"]
    assert [item["caption"] for item in items] == expected
    np.testing.assert_equal([item["label"] for item in items], [[1, 0, 0], [0, 1, 1], [np.nan, np.nan, 0]])
    assert items[0]["findings"]["mass"] == 1.0
    assert "1 row of the table of labels have no image" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\na,edema\n", "'finding' is missing"),
        ("name,finding\na,edema\n", "'sop_instance_uid' or 'image', found neither"),
        ("image,sop_instance_uid,finding\na,1,edema\n", "found both"),
        ("image,finding\nSECRET,edema\nSECRET,mass\n", r"repeats a value in 1 row, the first is row 3; join .*'\|'"),
        ("image,finding\n,edema\n", "'image' is empty in 1 row"),
    ],
)
def test_wrong_tables_of_labels(root, text, words):
    (root / "labels.csv").write_text(text)
    with pytest.raises(BundleError, match=words) as caught:
        dicom_dir.datalist(root, prompts=PROMPTS)
    assert "SECRET" not in str(caught.value)


def test_wrong_arguments(root, tmp_path):
    with pytest.raises(BundleError, match="a folder of images is expected"):
        dicom_dir.datalist(tmp_path / "none", prompts=PROMPTS)
    with pytest.raises(BundleError, match="headers name no split"):
        dicom_dir.datalist(root, "test", prompts=PROMPTS)
    with pytest.raises(BundleError, match="class 'edema' is no view or finding of this folder"):
        dicom_dir.datalist(root, prompts=PromptSet(("a {view}",), {"edema": ["x"]}))


def test_a_guess_is_no_caption_and_no_label(tmp_path, caplog):
    """Three images of one study, whose description names one view: only two say which they are."""
    caplog.set_level(logging.INFO)
    write(tmp_path / "1", "1.1", SeriesDescription="CHEST PA")
    write(tmp_path / "2", "1.2", SeriesDescription="CHEST PA", ViewPosition="PA")
    write(tmp_path / "3", "1.3", SeriesDescription="CHEST PA", PatientOrientation=["A", "F"])
    write(tmp_path / "4", "1.4", SeriesDescription="R MLO", Modality="MG")
    guessed, tagged, lateral, breast = sorted(
        dicom_dir.datalist(tmp_path, prompts=PROMPTS), key=lambda item: item["image"]
    )
    assert [item["view_source"] for item in (guessed, tagged, lateral)] == ["description", "tag", "orientation"]
    assert (guessed["view"], guessed["caption"], guessed["findings"]) == ("PA", "this is a radiograph", {})
    assert np.isnan(guessed["label"]).all()
    assert tagged["caption"] == "this is a radiograph in the posteroanterior view"
    assert (lateral["caption"], lateral["label"]) == ("this is a radiograph in the lateral view", [0, 0, 1, 0, 0])
    assert (breast["laterality"], breast["laterality_source"], breast["caption"]) == (
        *("R", "description"), "this is a mammogram",
    )  # fmt: skip
    assert "2 whose view is a guess" in caplog.text
    assert "1 whose laterality is a guess" in caplog.text


def special(root):
    """Images that are no plain view of a whole breast, and a copy."""
    mammogram = {"Modality": "MG", "ViewPosition": "CC", "ImageLaterality": "L"}
    modifier = pydicom.Dataset()
    modifier.CodeValue, modifier.CodingSchemeDesignator = "R-102D6", "SRT"
    write(root / "plain", "1.1", **mammogram)
    write(root / "copy", "1.1", **mammogram)
    write(root / "implant", "1.2", BreastImplantPresent="YES", PartialView="YES", **mammogram)
    write(root / "partial", "1.3", PartialView="YES", **mammogram | {"ViewPosition": "LMLO"})
    write(root / "magnified", "1.4", ViewModifierCodeSequence=[modifier], **mammogram)
    write(root / "specimen", "1.5", SeriesDescription="SPECIMEN", **mammogram)
    write(root / "2d", "1.6", ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"], **mammogram)


def test_what_is_no_plain_view_is_left_out_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    special(tmp_path)
    (item,) = dicom_dir.datalist(tmp_path, prompts=PROMPTS)
    assert Path(item["image"]).name == "copy"  # the first of the two by name
    assert "traits" not in item
    for reason in (
        *("1 second copies", "1 with a breast implant", "1 of a part of the organ", "1 magnified views"),
        *("1 of specimens", "1 synthesised from a tomosynthesis"),
    ):
        assert f"left out: {reason}\n" in caplog.text
    assert "7 files, 1 items" in caplog.text


def test_what_is_no_plain_view_can_be_kept_and_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    special(tmp_path)
    items = dicom_dir.datalist(tmp_path, prompts=PROMPTS, exclude=["specimen"])
    traits = {Path(item["image"]).name: item.get("traits") for item in items}
    assert traits == {
        **{"copy": None, "plain": "duplicate", "implant": "implant|partial", "partial": "partial"},
        **{"magnified": "magnification", "2d": "synthesised"},
    }
    assert len({item["name"] for item in items}) == 6
    check_items(items, list(PROMPTS.classes))
    assert "among the items: 2 of a part of the organ" in caplog.text
    assert dicom_dir.datalist(tmp_path, prompts=PROMPTS, exclude="specimen") == items
    for nothing in ([], None):
        assert len(dicom_dir.datalist(tmp_path, prompts=PROMPTS, exclude=nothing)) == 7


def test_orientations_for_which_there_is_no_rule_are_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    lying = {"up": ["L", "F"], "mirrored": ["R", "F"], "lateral": ["A", "F"], "leg": ["A", "F"], "silent": None}
    for number, (name, towards) in enumerate(lying.items()):
        view = "LL" if towards == ["A", "F"] else "PA"
        write(tmp_path / name, f"1.{number}", PatientOrientation=towards, ViewPosition=view)
    items = dicom_dir.datalist(tmp_path, prompts=PROMPTS)
    assert {Path(item["image"]).name: item.get("orientation") for item in items} == {
        **{"up": "none", "mirrored": "flip columns", "lateral": "unknown", "leg": "unknown", "silent": None},
    }
    said = "DICOM folder: among the items: 2 left as they lie, as no rule is known for the orientation"
    assert any(text.startswith(said) for text in caplog.messages)


@pytest.mark.parametrize("exclude", [["implants"], "implants", [None], [["implant"]], 5, {"implant": True}])
def test_what_cannot_be_excluded_is_one_line(tmp_path, exclude):
    with pytest.raises(BundleError, match=r"^exclude: expected [a-z ]+ of specimen, .*, duplicate, got .*$"):
        dicom_dir.datalist(tmp_path, prompts=PROMPTS, exclude=exclude)


def test_an_instance_of_two_patients_is_told(tmp_path, caplog):
    """A careless export gives one UID to all, and a copy under another pseudonym keeps its own: nobody can tell."""
    for number in (1, 2):
        write(tmp_path / f"{number}", "1.1", PatientID=f"P{number}", ViewPosition="AP")
    assert len(dicom_dir.datalist(tmp_path, prompts=PROMPTS)) == 2
    assert "SOP instances in several studies or patients, which count as different: 1" in caplog.text


def test_the_overlay_states_the_default_filter(root):
    overlay = json.loads((Path(__file__).parents[3] / "configs" / "data_dicom_dir.json").read_text())
    assert tuple(overlay["exclude"]) == dicom_dir.EXCLUDED
    assert overlay["items"]["exclude"] == "@exclude"


def test_links_are_followed_and_each_file_counts_once(root, tmp_path_factory, caplog):
    caplog.set_level(logging.INFO)
    elsewhere = tmp_path_factory.mktemp("disk")
    write(elsewhere / "z", "1.9", ViewPosition="AP")
    (root / "site_b").symlink_to(elsewhere)
    (root / "site_c").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(root)
    items = dicom_dir.datalist(root, prompts=PROMPTS)
    assert [item["image"] for item in items if item["view"] == "AP"] == [str(root / "site_b" / "z")]
    assert len(items) == 4
    assert "2 further links to a folder" in caplog.text


@pytest.mark.shared_data
def test_real_files(shared_data):
    items = dicom_dir.datalist(shared_data / "data" / "dicom", prompts=PROMPTS)
    assert sorted(item["modality"] for item in items) == ["CR", "CR", "MG"]
    mammogram = next(item for item in items if item["modality"] == "MG")
    assert mammogram["caption"] == "this is a mammogram of the right side in the mediolateral oblique view"
