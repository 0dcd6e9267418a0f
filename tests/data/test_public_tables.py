"""The real tables that the wheel of torchxrayvision holds: counts agree with pandas. They have no images."""

import gzip
import importlib.util
import re
import resource
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from cleft_bundle.data import check_items, load_prompts
from cleft_bundle.data.datasets import chexpert, nih, openi, rsna
from cleft_bundle.errors import BundleError

pytestmark = pytest.mark.slow
PROMPTS = Path(__file__).parents[2] / "configs" / "prompts"


@pytest.fixture(scope="module")
def tables():
    """The folder of the tables, read in place; the package itself is not imported."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the label tables of torchxrayvision: pip install --no-deps torchxrayvision==1.5.7")
    return Path(spec.submodule_search_locations[0]) / "data"


def unpack(source, target):
    target.write_bytes(gzip.decompress(source.read_bytes()))
    return pd.read_csv(target, index_col=False, dtype={"Patient ID": str})


def positives(items, name):
    return sum(item["findings"].get(name) == 1 for item in items)


@pytest.fixture(scope="module")
def chexpert_root(tables, tmp_path_factory):
    root = tmp_path_factory.mktemp("chexpert")
    return root, unpack(tables / "chexpert_train.csv.gz", root / "train.csv")


def test_chexpert(chexpert_root):
    root, table = chexpert_root
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    items = chexpert.datalist(root, prompts=load_prompts(PROMPTS / "chexpert.json"))
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert seconds < 20, f"{seconds:.1f} s of processor time for {len(items)} items; about 8 on the machine of 2 cores"
    assert grown < 0.6e9, f"{grown / 1e9:.2f} GB"

    frontal = table[table["Frontal/Lateral"] == "Frontal"]
    assert (frontal["AP/PA"].isin(["AP", "PA"])).sum() == 191_010
    listed = frontal[(frontal[list(chexpert.FINDINGS)] == 1).any(axis=1)]
    assert len(items) == len(listed)
    assert len({item["patient_id"] for item in items}) == listed["Path"].str.split("/").str[2].nunique()
    assert len({item["study_id"] for item in items}) == listed["Path"].str.rsplit("/", n=1).str[0].nunique()
    for name in chexpert.FINDINGS:
        assert positives(items, name.lower()) == (listed[name] == 1).sum(), name
        known = sum(name.lower() in item["findings"] for item in items)
        assert known == (listed[name] != -1).sum(), name
    assert sum(item.get("view") == "PA" for item in items) == (listed["AP/PA"] == "PA").sum()
    assert sum(item.get("sex") == "F" for item in items) == (listed["Sex"] == "Female").sum()
    assert sum("sex" not in item for item in items) == (listed["Sex"] == "Unknown").sum()


def test_chexpert_with_separate_uncertain_findings(chexpert_root):
    root, table = chexpert_root
    items = chexpert.datalist(root, prompts=load_prompts(PROMPTS / "chexpert.json"), uncertain="separate")
    frontal = table[table["Frontal/Lateral"] == "Frontal"]
    assert len(items) == frontal[list(chexpert.FINDINGS)].isin([1, -1]).any(axis=1).sum()
    for name in chexpert.FINDINGS:
        assert positives(items, f"uncertain {name.lower()}") == (frontal[name] == -1).sum(), name


def test_nih(tables, tmp_path):
    table = unpack(tables / "Data_Entry_2017_v2020.csv.gz", tmp_path / "Data_Entry_2017_v2020.csv")
    boxes = unpack(tables / "BBox_List_2017.csv.gz", tmp_path / "BBox_List_2017.csv")
    prompts = load_prompts(PROMPTS / "nih.json")
    items = nih.datalist(tmp_path, prompts=prompts)
    assert len(items) == len(table) == 112_120
    assert len({item["patient_id"] for item in items}) == table["Patient ID"].nunique()
    for name, count in table["Finding Labels"].str.split("|").explode().value_counts().items():
        assert positives(items, name.lower().replace("_", " ")) == count, name
    for code in ("F", "M"):
        assert sum(item["sex"] == code for item in items) == (table["Patient Gender"] == code).sum()
    assert sum(item["age"] for item in items) == table["Patient Age"].sum()
    assert sum(len(item.get("boxes", ())) for item in items) == len(boxes)
    boxed = pd.Series([name for item in items for name in item.get("box_findings", ())]).value_counts()
    assert boxed["infiltration"] == (boxes["Finding Label"] == "Infiltrate").sum()
    with pytest.raises(BundleError, match="112120 of 112120 images do not exist, the first: images/00000001_000"):
        check_items(items, list(prompts.classes))


def test_rsna(tables, tmp_path):
    zipfile.ZipFile(tables / "kaggle_stage_2_train_labels.csv.zip").extract("stage_2_train_labels.csv", tmp_path)
    table = pd.read_csv(tmp_path / "stage_2_train_labels.csv")
    items = rsna.datalist(tmp_path, prompts=load_prompts(PROMPTS / "rsna.json"))
    by_patient = table.groupby("patientId")["Target"].max()
    assert len(items) == len({item["patient_id"] for item in items}) == len(by_patient)
    assert positives(items, "pneumonia") == by_patient.sum()
    assert positives(items, "no finding") == (by_patient == 0).sum()
    boxes = pd.DataFrame(
        [box for item in items for box in item.get("boxes", ())], columns=["x", "y", "width", "height"]
    )
    pd.testing.assert_series_equal(boxes.sum(), table[boxes.columns].sum())
    assert len(boxes) == table["x"].notna().sum()


def test_openi(tables, tmp_path):
    with tarfile.open(tables / "NLMCXR_reports.tgz") as archive:
        reports = {Path(member.name).name: archive.extractfile(member) for member in archive if member.isfile()}
        (tmp_path / "ecgen-radiology").mkdir()
        for name, report in reports.items():
            (tmp_path / "ecgen-radiology" / name).write_bytes(report.read())
    rows = []
    for path in (tmp_path / "ecgen-radiology").glob("*.xml"):
        tree = ElementTree.parse(path)  # noqa: S314 - a published archive
        text = "".join(
            node.text or "" for node in tree.iter("AbstractText") if node.get("Label") in ("FINDINGS", "IMPRESSION")
        )
        headings = [re.sub("/.*", "", node.text).lower() for node in tree.findall("MeSH/major")]
        images = tree.findall("parentImage")
        rows.append({"text": bool(text.strip()), "images": len(images), "headings": set(headings)})
    table = pd.DataFrame(rows)
    assert len(table) == 3955
    prompts = load_prompts(PROMPTS / "openi.json")
    items = openi.datalist(tmp_path, prompts=prompts)
    spoken = table[table["text"] & (table["images"] > 0)]
    assert len(items) == spoken["images"].sum()
    assert len({item["patient_id"] for item in items}) == len(spoken)
    names = {
        "cardiomegaly": {"cardiomegaly"},
        "nodule": {"nodule"},
        "pleural effusion": {"pleural effusion", "hydropneumothorax"},
        "emphysema": {"emphysema", "pulmonary emphysema", "bullous emphysema"},
        "hiatal hernia": {"hernia, hiatal"},
    }
    for name, headings in names.items():
        assert positives(items, name) == spoken.loc[spoken["headings"].map(headings.__and__).map(bool), "images"].sum()
    unindexed = spoken.loc[["no indexing" in headings for headings in spoken["headings"]], "images"].sum()
    assert sum(not item["findings"] for item in items) == unindexed
