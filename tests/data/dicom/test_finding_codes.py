import json

import pydicom
import pytest
from pydicom.sr import _concepts_dict

from cleft_bundle.data.dicom.finding_codes import CODES, PRIVATE_SCHEME, finding_code
from tests.conftest import ROOT

#: SNOMED CT, but not in PS3.16
SNOMED_ONLY = {"8186001", "46621007", "95436008", "87433001", "233604007"}


@pytest.mark.skipif(int(pydicom.__version__[0]) < 3, reason="pydicom 2 holds an older PS3.16")
def test_codes_are_those_of_the_standard():
    known = {
        (scheme, value): meaning
        for scheme in ("DCM", "SCT")
        for values in _concepts_dict.concepts[scheme].values()
        for value, (meaning, *_) in values.items()
    }
    for code in CODES.values():
        assert len(code.value) <= 16
        assert len(code.meaning) <= 64
        if code.value not in SNOMED_ONLY:
            words = code.meaning.lower().split(" - ")[-1].split(",")[0]
            assert words in known[code.scheme, code.value].lower()


def test_a_class_of_its_own_gets_a_private_code():
    code = finding_code("Pleural  thickening")
    assert code == finding_code("pleural thickening ")._replace(meaning="Pleural thickening")
    assert code.scheme == PRIVATE_SCHEME == "99CLEFT"
    assert len(code.value) == 16
    assert finding_code("hernia").value != code.value
    assert len(finding_code("x" * 100).meaning) == 64


def test_case_does_not_matter():
    assert finding_code("Pleural Effusion") == finding_code("effusion")


@pytest.mark.parametrize("prompts", ["chexpert", "rsna", "embed_density"])
def test_most_classes_of_a_shipped_prompt_file_have_a_public_code(prompts):
    classes = json.loads((ROOT / "configs" / "prompts" / f"{prompts}.json").read_text())["classes"]
    private = [name for name in classes if finding_code(name).scheme == PRIVATE_SCHEME]
    assert set(private) <= {"support devices"}
