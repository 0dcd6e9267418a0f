import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cleft_bundle.data import check_items
from cleft_bundle.data.captions.prompts import PromptSet
from cleft_bundle.data.datasets import openi
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError

BASE = "this is a chest x ray of a patient with "
PROMPTS = PromptSet(
    (["{impression}", "{findings_text}"], ["{findings_text}"], [BASE + "{findings}"]),
    {name: [BASE + name] for name in ("cardiomegaly", "emphysema", "no finding")},
)


def report(number, findings="", impression="", mesh=(), images=()):
    """The elements of the release that are read, and some that are not."""
    return (
        '<?xml version="1.0" encoding="utf-8"?><eCitation><meta type="rr"/>'
        f'<uId id="CXR{number}"/><pmcId id="{number}"/><MedlineCitation><Article><Abstract>'
        '<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough</AbstractText>'
        f'<AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract></Article></MedlineCitation><MeSH>'
        + "".join(f"<major>{term}</major>" for term in mesh)
        + "<automatic>Emphysema</automatic></MeSH>"
        + "".join(f'<parentImage id="{image}"><figureId>F1</figureId></parentImage>' for image in images)
        + "</eCitation>"
    )


REPORTS = [
    report(
        1, "Clear lungs.", "Normal chest.", ["normal"], ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"]
    ),  # the one of its kind: its number comes twice
    report(
        2, "Large heart.", "", ["Cardiomegaly/mild", "Pulmonary Emphysema", "Lung/hypoinflation"], ["CXR2_IM-0652-1001"]
    ),
    report(3, "", "Effusion.", ["No Indexing"], ["CXR3_IM-1384-1001"]),
    report(4, "Nothing to see.", "", ["normal"]),
    report(5, "", "", ["normal"], ["CXR5_IM-2117-1003002"]),
]


@pytest.fixture
def write(tmp_path):
    def write(reports=REPORTS, folder="NLMCXR_png", name="{0}.png"):
        (tmp_path / "ecgen-radiology").mkdir(exist_ok=True)
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(reports, start=1):
            (tmp_path / "ecgen-radiology" / f"{number}.xml").write_text(text)
        for image in ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0652-1001", "CXR3_IM-1384-1001"):
            Image.new("L", (4, 4)).save(tmp_path / folder / name.format(image))
        return tmp_path

    return write


def test_items_of_a_miniature(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    items = openi.datalist(root, prompts=PROMPTS)
    assert [item["name"] for item in items] == [
        f"NLMCXR_png/{image}.png"
        for image in ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0652-1001", "CXR3_IM-1384-1001")
    ]
    assert items[0] == {
        "image": str(root / "NLMCXR_png" / "CXR1_1_IM-0001-3001.png"),
        "name": "NLMCXR_png/CXR1_1_IM-0001-3001.png",
        "caption": "Normal chest. Clear lungs.",
        "captions": ["Normal chest. Clear lungs.", "Clear lungs.", BASE + "no finding"],
        "findings": {"cardiomegaly": 0.0, "emphysema": 0.0, "no finding": 1.0},
        "label": [0.0, 0.0, 1.0],
        "patient_id": pseudonym("1"),
        "study_id": pseudonym("1"),
        "split": None,
    }
    assert items[2]["captions"] == ["Large heart.", BASE + "cardiomegaly, emphysema"]
    assert "captions" not in items[3]
    np.testing.assert_equal([item["label"] for item in items[2:]], [[1, 1, 0], [np.nan] * 3])
    assert items[3]["findings"] == {}
    for said in ("5 reports, 4 items", "1 reports without an image", "1 without findings and impression"):
        assert said in caplog.text
    check_items(items, list(PROMPTS.classes))


@pytest.mark.parametrize(
    ("headings", "names"),
    [
        (["normal"], ["no finding"]),
        (["normal", "Calcified Granuloma/lung"], ["calcified granuloma"]),
        (["Opacity/lung/base/left", "Opacity/lung/base/right"], ["opacity"]),
        (["Hernia, Hiatal/large", "Pulmonary Disease, Chronic Obstructive"],
         ["hiatal hernia", "chronic obstructive pulmonary disease"]),
        (["Hydropneumothorax"], ["pneumothorax", "pleural effusion"]),
        (["Lung/hypoinflation", "Aorta, Thoracic/tortuous"], []),
        (["normal", "Technical Quality of Image Unsatisfactory"], ["no finding"]),
        (["No Indexing"], None),
        ([], None),
    ],
)  # fmt: skip
def test_names_of_headings(headings, names):
    assert openi.name_findings(headings) == names


def test_files_and_projections_of_the_kaggle_copy(write):
    root = write(folder="images/images_normalized", name="{0}.dcm.png")
    folder = root / "images" / "images_normalized"
    for path in folder.iterdir():
        path.rename(folder / path.name.removeprefix("CXR").replace("1_1_", "1_"))
    with pytest.raises(BundleError, match=r"needs the table indiana_projections\.csv"):
        openi.datalist(root, prompts=PROMPTS, frontal_only=True)
    (root / "indiana_projections.csv").write_text(
        "uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Frontal\n1,1_IM-0001-3001.dcm.png,Lateral\n"
        "2,2_IM-0652-1001.dcm.png,Frontal\n"
    )
    items = openi.datalist(root, prompts=PROMPTS)
    assert all(Path(item["image"]).is_file() for item in items)
    assert items[0]["name"] == "images/images_normalized/1_IM-0001-3001.dcm.png"
    assert [item.get("view") for item in items] == ["LATERAL", "FRONTAL", "FRONTAL", None]
    assert openi.datalist(root, prompts=PROMPTS, frontal_only=True) == items[1:]
    (root / "indiana_projections.csv").write_text("filename,projection\n1_IM-0001-4001.dcm.png,Oblique\n")
    with pytest.raises(BundleError, match=r"'projection'.*'Oblique' in row 2"):
        openi.datalist(root, prompts=PROMPTS)


def test_absent_and_surplus_images_are_counted(write, caplog):
    caplog.set_level(logging.INFO)
    root = write()
    (root / "NLMCXR_png" / "CXR2_IM-0652-1001.png").rename(root / "NLMCXR_png" / "CXR9_IM-0001-1001.png")
    assert len(openi.datalist(root, prompts=PROMPTS)) == 4
    assert "1 of 4 images of the table are not there: CXR2_IM-0652-1001.png" in caplog.text
    assert "1 images without a row left out: CXR9_IM-0001-1001.png" in caplog.text


def test_wrong_folders_reports_and_arguments(write, tmp_path):
    with pytest.raises(BundleError, match=r"found no reports, expected ecgen-radiology/\*\.xml"):
        openi.datalist(tmp_path, prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"'CXR2_IM-0652-1001' is named twice, in 2\.xml and in 6\.xml"):
        openi.datalist(write([*REPORTS, report(6, "x", images=["CXR2_IM-0652-1001"])]), prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"6\.xml: not valid XML"):
        openi.datalist(write([*REPORTS, "<eCitation>"]), prompts=PROMPTS)
    with pytest.raises(BundleError, match="defines no split"):
        openi.datalist(tmp_path, "train", prompts=PROMPTS)
    with pytest.raises(BundleError, match=r"class 'cardiomegally' is no finding of Open-i.*'cardiomegaly'"):
        openi.datalist(tmp_path, prompts=PromptSet(("{findings}",), {"cardiomegally": ["x"]}))
    with pytest.raises(BundleError, match=r"nothing fills the slot \{age\}"):
        openi.datalist(tmp_path, prompts=PromptSet(("{age}",), PROMPTS.classes))
