import gzip
import logging
import math
from pathlib import Path

import pandas as pd
import pytest

from cleft_bundle.data.captions.prompts import PromptSet, load_prompts
from cleft_bundle.data.datasets import mimic_cxr
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

PROMPTS = load_prompts(Path(__file__).parents[3] / "configs" / "prompts" / "mimic_cxr.json")
METADATA = """\
dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,\
ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning
02aa-1,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531,CHEST (PA AND LAT),postero-anterior,Erect
02aa-2,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531,CHEST (PA AND LAT),lateral,Erect
03bb-1,10000032,53189527,CHEST (PORTABLE AP),AP,2705,2539,21800626,165500.312,CHEST (PORTABLE AP),antero-posterior,
04cc-1,10000764,57375967,CHEST (PORTABLE AP),,2705,2539,21800626,165500.312,CHEST (PORTABLE AP),antero-posterior,
04cc-2,10000764,57375967,CHEST (PORTABLE AP),AP LLD,2705,2539,21800626,165500.312,CHEST (PORTABLE AP),,
05dd-1,10000898,50771383,CHEST (PORTABLE AP),,2705,2539,21800626,165500.312,CHEST (PORTABLE AP),,
05dd-2,10000898,50771383,,LL,2705,2539,21800626,165500.312,,,
05dd-3,10000898,50771383,,PA,2705,2539,21800626,165500.312,,,
"""
LABELS = """\
subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,\
Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices
10000032,50414267,,,,,,,,,1.0,,,,,
10000032,53189527,,1.0,,-1.0,,,,,,1.0,,0.0,,
10000764,57375967,,,,,,,,,,,,,,
"""
SPLITS = """\
dicom_id,study_id,subject_id,split
02aa-1,50414267,10000032,train
02aa-2,50414267,10000032,train
03bb-1,53189527,10000032,train
04cc-1,57375967,10000764,validate
04cc-2,57375967,10000764,validate
05dd-1,50771383,10000898,test
05dd-2,50771383,10000898,test
05dd-3,50771383,10000898,test
"""
REPORTS = {
    "10000032/50414267": "                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n"
    " INDICATION:  ___F with new onset ascites  // eval for infection\n\n FINDINGS: \n\n There is no focal "
    "consolidation, pleural effusion or pneumothorax.  The cardiomediastinal\n silhouette is normal. Clips in the "
    "right upper quadrant.\n\n IMPRESSION: \n\n No acute cardiopulmonary process.\n",
    "10000032/53189527": " FINAL REPORT\n IMPRESSION:  Large heart.  Small effusion.\n",
    "10000764/57375967": " FINAL REPORT\n WET READ: ___ ___ 8:01 PM\n",
}


def miniature(root, metadata=METADATA, labels=LABELS, splits=SPLITS, suffix="jpg", packed=True):
    texts = {
        "metadata": metadata,
        "chexpert": labels,
        "negbio": labels and labels.replace("0.0", "1.0"),
        "split": splits,
    }
    for name, text in texts.items():
        if text:
            path = root / f"mimic-cxr-2.0.0-{name}.csv"
            path.write_text(text)
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
    for row in (metadata or METADATA).splitlines()[1:]:
        image, subject, study, *_ = row.split(",")
        folder = root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{image}.{suffix}").touch()
        if text := REPORTS.get(f"{subject}/{study}"):
            folder.with_suffix(".txt").write_text(text)
    return root


def test_items_of_a_miniature(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    items = mimic_cxr.datalist(root, prompts=PROMPTS)
    first = dict(items[0])
    assert Path(first.pop("image")) == root / "files/p10/p10000032/s50414267/02aa-1.jpg"
    spoken = [
        "There is no focal consolidation, pleural effusion or pneumothorax.",
        "The cardiomediastinal silhouette is normal.",
        "Clips in the right upper quadrant.",
        "No acute cardiopulmonary process.",
    ]
    sections = " ".join(spoken[:3])
    assert first["captions"][:3] == [
        f"{spoken[3]} {sections}",
        sections,
        "this is a chest x ray of a patient with no finding",
    ]
    drawn = first.pop("captions")[3:]
    assert len(drawn) == 3
    assert set(drawn) < set(spoken)
    assert first == {
        "name": "files/p10/p10000032/s50414267/02aa-1.jpg",
        "caption": f"{spoken[3]} {sections}",
        "findings": {name.lower(): float(name == "No Finding") for name in mimic_cxr.FINDINGS},
        "label": [0.0] * 7 + [1.0],
        "patient_id": pseudonym("10000032"),
        "study_id": pseudonym("10000032/50414267"),
        "split": "train",
        "view": "PA",
    }
    assert [item["name"][-10:-4] for item in items] == ["02aa-1", "03bb-1"]
    assert (
        "8 images, 2 items, 1 without a report, 1 of studies without labels; left out: 0 of other splits, "
        in caplog.text
    )
    assert "2 lateral, 2 of another view or none, 2 that nothing captions" in caplog.text


def test_uncertain_labels_and_studies_without(write):
    prompts = PromptSet((["{impression}"], ["with {findings}"], ["in {view}"]), PROMPTS.classes)
    items = {item["name"][-10:-4]: item for item in mimic_cxr.datalist(write(), prompts=prompts, sentence_captions=0)}
    place = list(prompts.classes).index("edema")
    assert "edema" not in items["03bb-1"]["findings"]
    assert math.isnan(items["03bb-1"]["label"][place])
    assert items["03bb-1"]["captions"] == [
        "Large heart. Small effusion.",
        "with cardiomegaly, pleural effusion",
        "in ap",
    ]
    assert items["04cc-1"]["view"] == "AP"
    assert items["04cc-1"]["label"] == [0.0] * 8
    assert items["05dd-3"]["findings"] == {}
    assert all(map(math.isnan, items["05dd-3"]["label"]))
    one = mimic_cxr.datalist(write(), prompts=prompts, uncertain="one")
    assert one[1]["label"][place] == 1.0
    separate = mimic_cxr.datalist(write(), prompts=prompts, uncertain="separate")
    assert "uncertain edema" in separate[1]["captions"][1]


def test_counts_agree_with_pandas(write):
    root = write(packed=False)
    prompts = PromptSet((["{findings}"], ["{view}"]), PROMPTS.classes)
    items = mimic_cxr.datalist(root, prompts=prompts, sentence_captions=0)
    table = pd.read_csv(root / "mimic-cxr-2.0.0-metadata.csv")
    table = table.merge(pd.read_csv(root / "mimic-cxr-2.0.0-chexpert.csv"), "left", on=["subject_id", "study_id"])
    frontal = table[table["ViewPosition"].isin(["PA", "AP"]) | (table["dicom_id"] == "04cc-1")]
    assert len(items) == len(frontal)
    for name in mimic_cxr.FINDINGS:
        assert sum(item["findings"].get(name.lower()) == 1 for item in items) == (frontal[name] == 1).sum()
    negbio = mimic_cxr.datalist(root, prompts=prompts, labeller="negbio")
    assert sum(item["findings"].get("pneumonia") == 1 for item in negbio) == 1
    found = [mimic_cxr.datalist(root, side, prompts=prompts) for side in ("train", "validation", "test")]
    assert [len(part) for part in found] == [2, 1, 1]


def test_lateral_images_and_other_views_on_request(write):
    prompts = PromptSet((["{findings}"], ["{view}"], ["{impression}"]), PROMPTS.classes)
    items = mimic_cxr.datalist(write(), prompts=prompts, frontal_only=False)
    assert {item["name"][-10:-4]: item.get("view") for item in items} == {
        "02aa-1": "PA", "02aa-2": "LATERAL", "03bb-1": "AP", "04cc-1": "AP", "05dd-2": "LATERAL", "05dd-3": "PA",
    }  # fmt: skip


def test_the_dicom_files_and_their_record_list(write):
    root = write(metadata=None, suffix="dcm")
    rows = [row.split(",") for row in METADATA.splitlines()[1:]]
    lines = [f"{p},{s},{i},files/p10/p{p}/s{s}/{i}.dcm\n" for i, p, s, *_ in rows]
    (root / "cxr-record-list.csv").write_text("subject_id,study_id,dicom_id,path\n" + "".join(lines))
    items = mimic_cxr.datalist(root, prompts=PROMPTS, frontal_only=False)
    assert len(items) == 3
    assert all(Path(item["image"]).is_file() and item["name"].endswith(".dcm") for item in items)
    with pytest.raises(BundleError, match=r"frontal_only needs the table mimic-cxr-\*-metadata\.csv\.gz"):
        mimic_cxr.datalist(root, prompts=PROMPTS)
    (root / "mimic-cxr-2.0.0-metadata.csv").write_text(METADATA)
    assert [item["name"][-3:] for item in mimic_cxr.datalist(root, prompts=PROMPTS)] == ["dcm"] * 2


def test_reports_in_their_own_folder_and_absent_images(write, caplog):
    root = write()
    (root / "mimic-cxr-reports").mkdir()
    for path in list(root.glob("files/p10/*/*.txt")):
        target = root / "mimic-cxr-reports" / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    (root / "files/p10/p10000032/s50414267/02aa-1.jpg").unlink()
    items = mimic_cxr.datalist(root, prompts=PROMPTS)
    assert items[1]["caption"] == "Large heart. Small effusion."
    assert "1 of 4 images of the table are not there: files/p10/p10000032/s50414267/02aa-1.jpg" in caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metadata": METADATA + METADATA.splitlines()[1].replace("PA,", "AP,") + "\n"}, "'dicom_id' repeats"),
        ({"metadata": METADATA.replace("02aa-1,10000032", "02aa-1,")}, "'subject_id' is empty in 1 row"),
        ({"metadata": METADATA.replace("dicom_id", "image")}, "column 'dicom_id' is missing"),
        ({"labels": LABELS.replace("-1.0", "2.0")}, "'Edema' .*'2.0' in row 3"),
        ({"labels": LABELS + LABELS.splitlines()[1].replace("1.0", "0.0") + "\n"}, "'study_id' repeats"),
        ({"labels": LABELS.replace("Edema,", "Oedema,")}, "column 'Edema' is missing"),
        ({"splits": SPLITS.replace("validate", "holdout")}, "'split' .*'holdout' in row 5"),
        ({"splits": SPLITS.replace("03bb-1", "03bb-9")}, r"1 row with an image that mimic-cxr-2\.0\.0-split\.csv\.gz"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(write, given, words):
    with pytest.raises(BundleError, match=words):
        mimic_cxr.datalist(write(**given), prompts=PROMPTS)


def test_wrong_arguments_are_named(write, tmp_path):
    with pytest.raises(BundleError, match="labeller: expected one of chexpert, negbio"):
        mimic_cxr.datalist(tmp_path, prompts=PROMPTS, labeller="visualchexbert")
    with pytest.raises(BundleError, match=r"found no table mimic-cxr-\*-metadata"):
        mimic_cxr.datalist(tmp_path, prompts=PROMPTS)
    with pytest.raises(BundleError, match="split: expected one of"):
        mimic_cxr.datalist(write(), "validate", prompts=PROMPTS)
    with pytest.raises(BundleError, match="sentence_captions: expected 0 or more"):
        mimic_cxr.datalist(write(), prompts=PROMPTS, sentence_captions=-1)
