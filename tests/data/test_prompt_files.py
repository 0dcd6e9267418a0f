"""Captions that the shipped prompt files write: complete, with parts missing, and for empty rows."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleft_bundle.data.captions.prompts import load_prompts
from cleft_bundle.data.datasets import embed

FOLDER = Path(__file__).parents[2] / "configs" / "prompts"
PROMPTS = {path.stem: load_prompts(path) for path in sorted(FOLDER.glob("*.json"))}
CHEST = ("findings", "view", "sex", "age")
BREAST = ("side", "view", "density", "density_words", "birads", "birads_words")
DETAILS = ("mass_shape", "mass_margin", "calcification_type", "calcification_distribution")
EMBED = (*BREAST, *DETAILS, "mass_density", "age", "race", "ethnicity", "reason")
MIAS = ("side", "view", "tissue", "findings", "pathology")
SLOTS = {
    "cbis": (*BREAST, *DETAILS, "pathology"),
    "chexpert": CHEST,
    "chexpert_5x200": CHEST,
    "cmmd": ("side", "view", "age", "findings", "pathology", "subtype"),
    "covid": (*CHEST, "notes"),
    "dicom_dir": ("modality", "side", *CHEST),
    "embed_birads": EMBED,
    "embed_density": EMBED,
    "embed_natural": EMBED,
    "embed_structural": EMBED,
    "mimic_cxr": ("findings", "findings_text", "impression", "view"),
    **{f"mias_{target}": MIAS for target in ("abnormality", "density", "severity")},
    "nih": CHEST,
    "openi": ("findings", "findings_text", "impression", "indication", "view"),
    "padchest": (*CHEST, "report"),
    "siim": ("findings",),
    "rsna": CHEST,
    "rsna_breast": (*BREAST, "age", "cancer"),
    "vindr_birads": BREAST,
    "vindr_cxr": ("findings",),
    "vindr_density": BREAST,
}
VALUES = {
    "age": 57.0,
    "birads": 4,
    "birads_words": "suspicious",
    "calcification_distribution": "grouped",
    "calcification_type": "amorphous",
    "cancer": "cancer",
    "density": 3.0,
    "density_words": "heterogeneously dense",
    "ethnicity": "not hispanic or latino",
    "findings": "edema, pleural effusion",
    "findings_text": "The heart is large. There is no pneumothorax.",
    "impression": "Mild edema.",
    "indication": "Dyspnea.",
    "mass_density": "high",
    "mass_margin": "spiculated",
    "mass_shape": "irregular",
    "modality": "mammogram",
    "notes": "Fever for 3 days.",
    "pathology": "malignant",
    "race": "african american or black",
    "reason": "screening",
    "report": "Sin hallazg patolog.",
    "sex": "female",
    "side": "left",
    "subtype": "luminal b",
    "tissue": "fatty",
    "view": "cc",
}
CHEST_BEGIN = "this is a chest x ray of a patient with"
CODES = {words: code for table in embed.TARGETS.values() for code, words in table.items()}
BREAST_BEGIN = "this is a breast 2d full field digital mammogram of a patient"
SIMPLE = (
    f"{BREAST_BEGIN} on the left side in the cc view with breast tissue density 3: heterogeneously dense "
    "with birads score 4: suspicious"
)
COMPLETE = {
    "cbis": [
        "this is a scanned film mammogram of a patient on the left side in the cc view with breast tissue density 3: "
        "heterogeneously dense with malignant pathology with a mass of irregular shape and spiculated margin "
        "with amorphous calcifications of grouped distribution"
    ],
    "cmmd": [
        f"{BREAST_BEGIN} on the left side in the cc view with edema, pleural effusion with malignant pathology "
        "of subtype luminal b"
    ],
    **{
        f"mias_{target}": [
            "this is a scanned film mammogram of a patient on the left side in the cc view with fatty tissue "
            "with edema, pleural effusion of malignant pathology"
        ]
        for target in ("abnormality", "density", "severity")
    },
    "rsna_breast": [f"{SIMPLE} with cancer"],
    "chexpert": [f"{CHEST_BEGIN} edema, pleural effusion"],
    "embed_birads": [SIMPLE],
    "embed_density": [SIMPLE],
    "embed_natural": [
        "The reason for this exam is screening. "
        "The patient is african american or black, not hispanic or latino and 57 years old. "
        "This is a 2d full field digital mammogram of the left breast in the cc view. "
        "The breast composition is density 3: heterogeneously dense. "
        "The density of the breast may lower the sensitivity of mammography. "
        "There is a mass with irregular shape, spiculated margin and high density. "
        "There are amorphous calcifications with grouped distribution. "
        "The impression is BI-RADS category 4: suspicious."
    ],
    "embed_structural": [
        "Procedure reported: 2d full field digital mammogram. Reason for procedure: screening. "
        "Patient info: african american or black, not hispanic or latino, 57 years old. "
        "Image info: left breast, cc view. "
        "Breast composition: density 3: heterogeneously dense. "
        "The density of the breast may lower the sensitivity of mammography. "
        "Findings: There is a mass with irregular shape, spiculated margin and high density. "
        "There are amorphous calcifications with grouped distribution. "
        "Impressions: BI-RADS category 4: suspicious. Overall Assessment: suspicious."
    ],
    "nih": [f"{CHEST_BEGIN} edema, pleural effusion"],
    "mimic_cxr": [
        "Mild edema. The heart is large. There is no pneumothorax.",
        "The heart is large. There is no pneumothorax.",
        f"{CHEST_BEGIN} edema, pleural effusion",
    ],
    "covid": ["Fever for 3 days.", f"{CHEST_BEGIN} edema, pleural effusion"],
    "padchest": [f"{CHEST_BEGIN} edema, pleural effusion"],
    "siim": [f"{CHEST_BEGIN} edema, pleural effusion"],
    "openi": [
        "Mild edema. The heart is large. There is no pneumothorax.",
        "The heart is large. There is no pneumothorax.",
        f"{CHEST_BEGIN} edema, pleural effusion",
    ],
    "rsna": [f"{CHEST_BEGIN} edema, pleural effusion"],
    "vindr_birads": [SIMPLE],
    "vindr_cxr": [f"{CHEST_BEGIN} edema, pleural effusion"],
    "vindr_density": [SIMPLE],
}
PARTLY = [
    ("embed_natural", {"age": 57}, "The patient is 57 years old."),
    ("embed_natural", {"race": "asian", "age": 57}, "The patient is asian and 57 years old."),
    ("embed_natural", {"view": "mlo"}, "This is a 2d full field digital mammogram in the mlo view."),
    (
        "embed_natural",
        {"density": 2, "density_words": "scattered fibroglandular densities", "mass_density": "equal"},
        "The breast composition is density 2: scattered fibroglandular densities. There is a mass with equal density.",
    ),
    ("embed_natural", {"calcification_type": "skin"}, "There are skin calcifications."),
    ("embed_natural", {"calcification_distribution": "linear"}, "There are calcifications with linear distribution."),
    (
        "embed_structural",
        {"age": 57, "mass_shape": "oval"},
        "Procedure reported: 2d full field digital mammogram. Patient info: 57 years old. "
        "Findings: There is a mass with oval shape.",
    ),
    (
        "embed_structural",
        {"density": 4, "density_words": "extremely dense", "view": "cc"},
        "Procedure reported: 2d full field digital mammogram. Image info: cc view. "
        "Breast composition: density 4: extremely dense. "
        "The density of the breast may lower the sensitivity of mammography.",
    ),
    ("embed_density", {"side": "right"}, f"{BREAST_BEGIN} on the right side"),
    ("vindr_birads", {"birads": 5, "birads_words": None, "view": "cc"}, f"{BREAST_BEGIN} in the cc view"),
    (
        "cbis",
        {"pathology": "benign", "calcification_type": "pleomorphic"},
        "this is a scanned film mammogram of a patient with benign pathology with pleomorphic calcifications",
    ),
    (
        "cbis",
        {"mass_margin": "obscured"},
        "this is a scanned film mammogram of a patient with a mass of obscured margin",
    ),
    ("openi", {"impression": "Normal chest."}, "Normal chest."),
]


def test_every_file_is_tested():
    assert set(PROMPTS) == set(SLOTS)


@pytest.mark.parametrize("name", SLOTS)
def test_each_file_asks_for_slots_of_its_set_and_describes_them_all(name):
    prompts = PROMPTS[name]
    prompts.check_slots(SLOTS[name])
    assert set(SLOTS[name]) <= set(re.findall(r"\{(\w+)\}", prompts.description))


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_row(name):
    assert PROMPTS[name].write(VALUES) == COMPLETE[name]


@pytest.mark.parametrize(("name", "values", "expected"), PARTLY)
def test_a_row_with_missing_values(name, values, expected):
    assert PROMPTS[name].write(values) == [expected]


@pytest.mark.parametrize("name", SLOTS)
@pytest.mark.parametrize("missing", [None, "", " ", float("nan")])
def test_an_empty_row_has_no_caption(name, missing):
    assert PROMPTS[name].write({}) == []
    assert PROMPTS[name].write(dict.fromkeys(VALUES, missing)) == []


HEADINGS = re.findall(r'"start": "([^"]*:)"', (FOLDER / "embed_structural.json").read_text())


@given(name=st.sampled_from(sorted(SLOTS)), kept=st.sets(st.sampled_from(sorted(VALUES))), density=st.integers(1, 5))
def test_any_missing_values_leave_good_grammar(name, kept, density):
    values = {slot: value for slot, value in {**VALUES, "density": density}.items() if slot in kept}
    for caption in PROMPTS[name].write(values):
        for wrong in ("  ", "unknown", "{", "}", " ,", " .", ",,", "..", ", .", ":."):
            assert wrong not in caption
        assert caption == caption.strip()
        assert not re.search(r"\b(None|nan)\b", caption)
        for heading in HEADINGS:
            after = caption.partition(heading)[2].lstrip()
            assert heading not in caption or (after and not after.startswith(tuple(HEADINGS)))
        if name in ("embed_natural", "embed_structural"):
            assert caption.endswith(".")
            for sentence in caption.split(". "):
                assert sentence[0].isupper()
            assert ("may lower the sensitivity" in caption) == ("density" in kept and density in (3, 4))
        assert not re.search(r"\b(is|are|with|of|the|a|and|in|on)\.?$", caption)


def test_class_prompts_are_captions_of_that_class():
    for name in ("chexpert", "nih", "rsna"):
        assert list(PROMPTS[name].classes.values()) == [
            PROMPTS[name].write({"findings": c}) for c in PROMPTS[name].classes
        ]
    for name, slot in (("cmmd", "pathology"), ("rsna_breast", "cancer"), ("mias_density", "tissue")):
        assert list(PROMPTS[name].classes.values()) == [PROMPTS[name].write({slot: c}) for c in PROMPTS[name].classes]
    assert list(PROMPTS["cbis"].classes.values()) == [
        PROMPTS["cbis"].write({"pathology": c}) for c in PROMPTS["cbis"].classes
    ]
    for name, slot in (("embed_birads", "birads"), ("embed_density", "density"), ("vindr_birads", "birads"),
                       ("vindr_density", "density"), ("embed_natural", "birads"),
                       ("embed_structural", "birads")):  # fmt: skip
        for words, texts in PROMPTS[name].classes.items():
            assert texts == PROMPTS[name].write({slot: CODES[words], f"{slot}_words": words})


def test_rsna_is_pneumonia_against_no_finding():
    assert list(PROMPTS["rsna"].classes) == ["pneumonia", "no finding"]
    assert PROMPTS["rsna"].negatives == {"pneumonia": ["this is a chest x ray of a patient without pneumonia"]}
    assert "pneumothorax" not in (FOLDER / "rsna.json").read_text()


def test_files_are_laid_out_for_people():
    for path in FOLDER.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
