import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor

from cleft_bundle.data import pseudonym
from cleft_bundle.data.phantoms.folder import README
from cleft_bundle.data.radiograph_reader import RadiographReader
from cleft_bundle.errors import RadiographError
from cleft_bundle.reports.describe import counts, write_report

CLASSES = ["edema", "mass", "no finding"]


def item(number, label, split="train", caption=None, **others):
    return {
        "image": f"{number}.png",
        "name": f"secret-{number}.png",
        "caption": caption or f"caption {number % 4}",
        "label": list(label),
        "patient_id": pseudonym(f"p{number // 2}"),
        "study_id": pseudonym(f"s{number}"),
        "split": split,
        **others,
    }


@pytest.fixture
def splits():
    rng = np.random.default_rng(0)
    labels = [(1, 1, 0), (1, 0, 0), (0, float("nan"), 0), (0, 0, 1)]
    items = [
        item(n, labels[n % 4], view="AP" if n % 3 else "PA", sex="FM"[n % 2], age=float(rng.integers(20, 90)))
        for n in range(60)
    ]
    return {"train": items[:40], "validation": [{**each, "split": "validation"} for each in items[40:]], "test": []}


def draw(each):
    """An image whose grey follows from its name; one cannot be read."""
    number = int(each["image"].split(".")[0])
    if number == 7:
        raise RadiographError("the file ends within its pixels")
    return {**each, "image": torch.full((1, 20, 30), number / 60)}


def report(splits, tmp_path, tokenize, **others):
    arguments = {"dataset_name": "X & <Y>", "dataset_dir": tmp_path, "class_names": CLASSES, "batch_size": 8}
    arguments |= {"transform": draw, **others}
    path = write_report(splits, tmp_path / "out" / "r.html", tokenize=tokenize, **arguments)
    return Path(path).read_text(encoding="utf-8")


class Outside(HTMLParser):
    """Collects what a page would load, and whether its tags are closed."""

    def __init__(self):
        super().__init__()
        self.loads, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_sources_of_views_and_traits_are_shown_where_items_have_them(splits, tmp_path, tokenize):
    assert "View source" not in report(splits, tmp_path, tokenize)
    for number, each in enumerate(splits["train"]):
        each |= {"view_source": "tag" if number % 2 else "description", "traits": "implant"}
    html = report(splits, tmp_path, tokenize)
    assert "View source and traits" in html
    for number, each in enumerate(splits["train"]):
        each |= {"orientation": "none" if number % 2 else "unknown"}
    assert "Orientation" in report(splits, tmp_path, tokenize)


def test_doubtful_images_among_those_looked_at_are_counted(splits, tmp_path, tokenize, caplog):
    doubts = {"8.png": {"orientation_applied": "unknown"}, "9.png": {"blank": True}, "10.png": {"blank": True}}

    def lying(each):
        picture = torch.arange(600.0).reshape(1, 20, 30) / 600
        return {**each, "image": MetaTensor(picture, meta=doubts.get(each["image"], {}))}

    report(splits, tmp_path, tokenize, transform=lying, samples=60)
    for said in (
        "2 of 60 images that the data report looked at are blank: all their pixels have one value",
        "1 of 60 images that the data report looked at are left as they lie: no rule is known for the orientation",
    ):
        assert any(text.startswith(said) for text in caplog.messages)


def test_the_page_holds_all_that_it_shows_and_nothing_that_identifies(splits, tmp_path, tokenize):
    html = report(splits, tmp_path, tokenize, samples=60)
    page = Outside()
    page.feed(html)
    assert page.open == []
    assert page.loads
    assert all(load.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")) for load in page.loads)
    assert "url(" not in html
    assert "X &amp; &lt;Y&gt;" in html
    assert "the file ends within its pixels" in html
    assert not re.search("secret-|patient_id", html)
    assert not any(each["patient_id"] in html or each["study_id"] in html for each in splits["train"])
    assert str(tmp_path) not in html


def test_phantoms_are_named(splits, tmp_path, tokenize):
    assert "phantom" not in re.sub(r"\.phantom[ ,].*", "", report(splits, tmp_path, tokenize))
    (tmp_path / "README.txt").write_text(README.format(kind="chest", patients=60, seed=0))
    html = report(splits, tmp_path, tokenize)
    assert "Synthetic phantoms, no patients." in html
    assert "images of 30 phantoms" in html


def test_the_same_data_give_the_same_page(splits, tmp_path, tokenize):
    assert report(splits, tmp_path, tokenize) == report(splits, tmp_path, tokenize)


def test_data_that_know_nothing_but_captions_have_a_page_too(tmp_path, tokenize):
    items = [{key: value for key, value in item(n, ()).items() if key != "study_id"} for n in range(6)]
    html = report({"train": items, "validation": [], "test": []}, tmp_path, tokenize, class_names=[])
    assert "The set does not say: view, laterality, sex, age, manufacturer." in html


def test_counts_agree_with_pandas(splits):
    frame = counts.tabulate(splits)
    items = splits["train"] + splits["validation"]
    assert frame.groupby("split")["patient_id"].nunique().to_dict() == {"train": 20, "validation": 10}
    assert frame["sex"].value_counts().to_dict() == {"female": 30, "male": 30}
    assert frame["manufacturer"].isna().all()
    labels = pd.DataFrame([each["label"] for each in splits["train"]], columns=CLASSES)
    table = counts.label_counts(splits, CLASSES)["train"]
    assert table["positive"].to_dict() == (labels == 1).sum().to_dict()
    assert table["unknown"].to_dict() == labels.isna().sum().to_dict()
    assert table.sum(axis=1).tolist() == [40, 40, 40]
    assert counts.cooccurrence(items, CLASSES).tolist() == [[30, 15, 0], [15, 15, 0], [0, 0, 15]]


def test_tokens_are_counted_before_they_are_cut(tokenize):
    items = [
        item(0, (1, 0, 0), caption="edema"),
        item(1, (1, 0, 0), caption="edema " * 50),
        item(2, (1, 0, 0), caption="edema"),
    ]
    frequency, lengths = counts.caption_tokens(items, tokenize)
    assert frequency["edema"] == 2
    assert lengths["edema"] == int(tokenize(["edema"])["attention_mask"].sum())
    assert lengths.max() > tokenize.max_length


def test_distinct_captions_are_those_of_whole_batches(tokenize):
    items = [item(n, (1, 0, 0), caption=f"c{n % 3}") for n in range(20)]
    distinct = counts.distinct_captions(items, 8, seed=0, tokenize=tokenize)
    assert len(distinct) == 300
    assert set(distinct) <= {1, 2, 3}
    assert (counts.distinct_captions(items, 8, seed=0, tokenize=tokenize) == distinct).all()
    several = [{**each, "captions": [f"{each['name']} {k}" for k in range(3)]} for each in items]
    assert set(counts.distinct_captions(several, 8, seed=0, tokenize=tokenize)) == {8}
    long = [{**each, "caption": "edema " * 50 + each["name"]} for each in items]
    assert set(counts.distinct_captions(long, 8, seed=0, tokenize=tokenize)) == {1}, "equal once they are cut"
    assert len(counts.distinct_captions([], 8, seed=0, tokenize=tokenize)) == 0


def test_samples_let_classes_take_turns_and_patients_come_once(splits):
    chosen = counts.choose_samples(splits["train"], CLASSES, 12, seed=0)
    assert len({each["patient_id"] for each in chosen}) == len(chosen) == 12
    assert all(sum(each["label"][k] == 1 for each in chosen) >= 3 for k in range(3))
    everything = counts.choose_samples(splits["train"], CLASSES, 99, seed=0)
    assert len({id(each) for each in everything}) == 40


def test_makers_come_from_the_headers(dicom, tmp_path):
    expected = RadiographReader().get_data(RadiographReader().read(str(dicom)))[1]["manufacturer"]
    (tmp_path / "no.dcm").write_bytes(b"text")
    assert sorted(counts.makers([{"image": str(dicom)}, {"image": str(tmp_path / "no.dcm")}], 0)) == ["", expected]
