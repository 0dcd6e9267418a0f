import io
import re
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleft_bundle.data.captions.reports import (
    BODY,
    Report,
    parse_openi,
    read_openi,
    read_text,
    sentences,
    without_marks,
)
from cleft_bundle.errors import BundleError

OPENI = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
  <pmcId id="7"/>
  <MedlineCitation><Article><Abstract>
    <AbstractText Label="COMPARISON"/>
    <AbstractText Label="INDICATION">XXXX-year-old woman with dyspnea.</AbstractText>
    <AbstractText Label="FINDINGS">The heart is
      normal in size. The XXXX are intact. No pleural effusion or XXXX.</AbstractText>
    <AbstractText Label="IMPRESSION">1. No acute disease. 2. Stable chest x-XXXX since XXXX.</AbstractText>
  </Abstract></Article></MedlineCitation>
  <MeSH><major>Cardiomegaly/mild</major><major> Opacity/lung </major><automatic>opacity</automatic></MeSH>
  <parentImage id="CXR7_IM-1-1001"><caption>PA</caption></parentImage>
  <parentImage id="CXR7_IM-1-2001"/>
</eCitation>
"""
MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 COMPARISON:  ___.

 PA AND LATERAL VIEWS OF THE CHEST:  There is no focal consolidation, pleural
 effusion or pneumothorax.  The nodule measures 1.5 cm.

 The patient was seen by Dr. ___ at 8 a.m. on ___.
 ____________________________________

 Impression:
 1.  No acute
 cardiopulmonary process
 2.  Unchanged since ___.
"""


def test_an_open_i_report(tmp_path):
    path = tmp_path / "7.xml"
    path.write_text(OPENI, encoding="utf-8")
    assert read_openi(path) == Report(
        {
            "indication": "Woman with dyspnea.",
            "findings": "The heart is normal in size. No pleural effusion.",
            "impression": "No acute disease. Stable chest x-ray.",
        },
        mesh=("Cardiomegaly/mild", "Opacity/lung"),
        images=("CXR7_IM-1-1001", "CXR7_IM-1-2001"),
        uid="7",
    )


def test_a_text_report(tmp_path):
    path = tmp_path / "s1.txt"
    path.write_text(MIMIC, encoding="utf-8")
    report = read_text(path)
    assert report.sections == {
        "examination": "CHEST (PA AND LAT)",
        "indication": "With new onset ascites // eval for infection",
        "pa and lateral views of the chest": (
            "There is no focal consolidation, pleural effusion or pneumothorax. The nodule measures 1.5 cm.\n"
            "The patient was seen by Dr. at 8 a.m."
        ),
        "impression": "No acute cardiopulmonary process\nUnchanged.",
    }
    assert sentences(report.sections["impression"]) == ["No acute cardiopulmonary process", "Unchanged."]


def test_text_without_headings_is_the_body_and_repeated_headings_are_put_together(tmp_path):
    path = tmp_path / "s2.txt"
    path.write_text("The lungs are\nclear.\nFINDINGS: One.\nIMPRESSION: Two.\nFINDINGS: Three.\n", encoding="utf-8")
    assert read_text(path).sections == {BODY: "The lungs are clear.", "findings": "One.\nThree.", "impression": "Two."}


@pytest.mark.parametrize(
    ("reader", "content", "words"),
    [
        (read_openi, None, "cannot be read"),
        (read_text, None, "cannot be read"),
        (read_openi, b"<eCitation>", "not valid XML"),
        (read_openi, b"<?xml version='1.0' encoding='none'?><a/>", "not valid XML"),
        (read_openi, b"<eCitation/>", "no element AbstractText"),
        (read_text, b"caf\xe9", "UTF-8"),
        (read_text, b"FINAL REPORT\n ___\nFINDINGS:\n", "no words"),
    ],
)
def test_errors_are_one_line_that_names_the_file(tmp_path, reader, content, words):
    path = tmp_path / "odd.file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        reader(path)
    assert "odd.file" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Clear lungs. No effusion.", ["Clear lungs.", "No effusion."]),
        ("A nodule of 1.5 cm is seen. It is new.", ["A nodule of 1.5 cm is seen.", "It is new."]),
        ("It measures 1.5 cm. The heart is large.", ["It measures 1.5 cm.", "The heart is large."]),
        ("Told Dr. Smith and Dr. J. Jones. Thank you!", ["Told Dr. Smith and Dr. J. Jones.", "Thank you!"]),
        ("Seen at 8 a.m. today. Stable.", ["Seen at 8 a.m. today.", "Stable."]),
        ("Seen at 8 a.m. The tube is out.", ["Seen at 8 a.m.", "The tube is out."]),
        ("1. Edema. 2. No effusion. 3) Clear.", ["Edema.", "No effusion.", "Clear."]),
        ("1. Edema 2. No effusion", ["Edema", "No effusion"]),
        ("Fracture of rib 2. No effusion.", ["Fracture of rib 2.", "No effusion."]),
        ("Scar vs. nodule, e.g. granuloma.", ["Scar vs. nodule, e.g. granuloma."]),
        ("Normal heart.No effusion", ["Normal heart.", "No effusion"]),
        ("Is it new? Yes (see below.) Done", ["Is it new?", "Yes (see below.)", "Done"]),
        ("No edema\nno effusion", ["No edema", "no effusion"]),
        (" \n ", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("No effusion.", "No effusion."),
        ("XXXX.", ""),
        ("XXXX at XXXX, XXXX.", ""),
        ("Comparison to XXXX.", ""),
        ("XXXX are clear.", ""),
        ("The visualized XXXX XXXX are grossly intact.", ""),
        ("Lungs are XXXX.", ""),
        ("No effusion, lungs are XXXX.", "No effusion, lungs are."),
        ("No XXXX.", ""),
        ("XXXX-year-old male with chest pain", "Male with chest pain"),
        ("___M with cough.", "With cough."),
        ("PA and lateral chest x-XXXX.", "PA and lateral chest x-ray."),
        ("Unchanged from the XXXX.", "Unchanged."),
        ("The heart and the XXXX are normal.", "The heart are normal."),
        ("No XXXX of pneumonia.", "No pneumonia."),
        ("There is no XXXX effusion.", "There is no effusion."),
        ("Patient with XXXX and headache.", "Patient with headache."),
        ("History of XXXX with pain, XXXX, XXXX.", "History with pain."),
        ("Compared to XXXX, there has been extubation.", "Compared, there has been extubation."),
        ("COPD/XXXX, stable", "COPD, stable"),
        ("Dual-XXXX pacemaker (XXXX) is seen..", "Pacemaker is seen."),
        ("XXXX and asthma", "Asthma"),
        ("Discussed with Dr. ___ by telephone at ___ on ___.", "Discussed with Dr. by telephone."),
        ("Mr. [**Known lastname 12**] has no edema.", "Mr. has no edema."),
    ],
)
def test_marks_are_taken_out(marked, expected):
    assert without_marks(marked) == expected


WORDS = [
    "no",
    "XXXX",
    "without",
    "the",
    "edema",
    "and",
    "x-XXXX",
    "of",
    "is",
    "effusion",
    "not",
    ",",
    ".",
    "___",
    "(",
    ")",
]


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_no_mark_and_no_gap_is_left_and_negations_stay(words):
    clean = without_marks(" ".join(words))
    if "XXXX" in words or "___" in words:
        assert not re.search(r"XXXX|__|\0|  | [.,)]|,,|\.\.", clean)
    if clean:
        lower = re.findall(r"\w+", clean.lower())
        for negation in ("no", "not"):
            assert lower.count(negation) == words.count(negation)


@pytest.fixture(scope="module")
def archive():
    """The raw XML of all Open-i reports by file name."""
    package = find_spec("torchxrayvision")
    path = package and Path(next(iter(package.submodule_search_locations))) / "data" / "NLMCXR_reports.tgz"
    if not path or not path.is_file():
        pytest.skip("needs the Open-i reports that come with the pip package torchxrayvision==1.5.7")
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.name.endswith(".xml")}


def test_every_real_open_i_report_is_read(archive):
    reports = {name: parse_openi(content, name) for name, content in archive.items()}
    assert len(reports) == 3955
    raw = "".join(content.decode("utf-8") for content in archive.values())
    for label in ("FINDINGS", "IMPRESSION"):
        texts = re.findall(rf'<AbstractText Label="{label}">([^<]*)</AbstractText>', raw)
        assert sum(label.lower() in report.sections for report in reports.values()) == len(texts)
    for label in ("INDICATION", "COMPARISON"):
        texts = re.findall(rf'<AbstractText Label="{label}">([^<]*)</AbstractText>', raw)
        unmarked = sum("XXXX" not in text for text in texts)
        assert unmarked <= sum(label.lower() in report.sections for report in reports.values()) <= len(texts)
    for key, pattern in {"images": r"<parentImage id=", "mesh": r"<major>"}.items():
        assert sum(len(getattr(report, key)) for report in reports.values()) == len(re.findall(pattern, raw))
    assert {report.uid for report in reports.values()} == set(re.findall(r'<pmcId id="(\d+)"', raw))
    assert sum("normal" in report.mesh for report in reports.values()) == raw.count("<major>normal</major>")


def test_real_open_i_sections_are_clean_text(archive):
    count = 0
    for name, content in archive.items():
        for text in parse_openi(content, name).sections.values():
            assert "XXXX" not in text
            found = sentences(text)
            count += len(found)
            assert " ".join(found) == " ".join(text.split())
    assert count > 20_000


def test_real_negations_stay(archive):
    for name, content in archive.items():
        raw = content.decode("utf-8")
        if "XXXX" not in raw.partition('Label="IMPRESSION"')[2].partition("<")[0]:
            marked = re.findall(r'Label="IMPRESSION">([^<]*)<', raw)
            clean = parse_openi(content, name).sections.get("impression", "")
            assert len(re.findall(r"\b[Nn]o\b", clean)) == sum(len(re.findall(r"\b[Nn]o\b", text)) for text in marked)
