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
from cleft_bundle.data.datasets import chexpert, nih, openi, padchest, rsna, siim, vindr_cxr
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


@pytest.mark.parametrize(("readers", "least"), [("majority", 2), ("any", 1), ("all", 3)])
def test_vindr_cxr(tables, tmp_path, readers, least):
    table = unpack(tables / "vinbigdata-train.csv.gz", tmp_path / "train.csv")
    items = vindr_cxr.datalist(tmp_path, prompts=load_prompts(PROMPTS / "vindr_cxr.json"), readers=readers)
    votes = table.drop_duplicates(["image_id", "rad_id", "class_name"]).groupby(["image_id", "class_name"]).size()
    present = votes[votes >= least].drop("No finding", level="class_name")
    normal = set(votes[votes.xs("No finding", level="class_name", drop_level=False).index].loc[lambda n: n >= 2]
                 .index.get_level_values("image_id")) - set(present.index.get_level_values("image_id"))  # fmt: skip
    assert len(items) == present.index.get_level_values("image_id").nunique() + len(normal)
    for name, count in present.groupby("class_name").size().items():
        assert positives(items, name.lower()) == count, name
    assert positives(items, "no finding") == len(normal)
    boxes = table[pd.MultiIndex.from_frame(table[["image_id", "class_name"]]).isin(present.index)]
    assert sum(len(item.get("boxes", ())) for item in items) == len(boxes)
    width = sum(box[2] for item in items for box in item.get("boxes", ()))
    assert width == pytest.approx((boxes["x_max"] - boxes["x_min"]).sum())


def test_padchest(tables, tmp_path):
    source = tables / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    (tmp_path / source.name).symlink_to(source)
    table = pd.read_csv(source, low_memory=False, dtype={"PatientID": str}, usecols=[
        "ImageID", "PatientID", "Projection", "Labels", "PatientSex_DICOM"])  # fmt: skip
    items = padchest.datalist(tmp_path, prompts=load_prompts(PROMPTS / "padchest.json"))
    labels = table["Labels"].fillna("[]").str.findall(r"'\s*([^']*?)\s*'").map(lambda names: [n for n in names if n])
    kept = table["Projection"].isin(["PA", "AP", "AP_horizontal"]) & ~labels.map(lambda names: "exclude" in names)
    findings = labels.map(lambda names: {name.lower() for name in names} - padchest.NO_FINDINGS)
    listed = table[kept & findings.map(bool)]
    assert len(items) == len(listed)
    assert len({item["patient_id"] for item in items}) == listed["PatientID"].nunique()
    shown = findings[listed.index]
    for name in ("cardiomegaly", "pleural effusion", "copd signs", "nodule", "pneumothorax"):
        assert positives(items, name) == shown.map(lambda names, name=name: name in names).sum(), name
    assert positives(items, "no finding") == shown.map(lambda names: names == {"normal"}).sum()
    assert sum(item.get("sex") == "F" for item in items) == (listed["PatientSex_DICOM"] == "F").sum()
    assert sum(item["view"] == "PA" for item in items) == (listed["Projection"] == "PA").sum()


def test_siim(tables, tmp_path):
    table = unpack(tables / "siim-pneumothorax-train-rle.csv.gz", tmp_path / "train-rle.csv")
    table.columns = table.columns.str.strip()
    items = siim.datalist(tmp_path, prompts=load_prompts(PROMPTS / "siim.json"))
    masks = table[table["EncodedPixels"].str.strip() != "-1"]
    assert len(items) == table["ImageId"].nunique()
    assert positives(items, "pneumothorax") == masks["ImageId"].nunique()
    assert sum(len(item.get("boxes", ())) for item in items) == len(masks)
    assert all(x >= 0 and y >= 0 and x + width <= 1024 and y + height <= 1024
               for item in items for x, y, width, height in item.get("boxes", ()))  # fmt: skip
