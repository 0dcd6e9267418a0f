import json

import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.reports.evaluation.about import FIELDS, read_about
from tests.conftest import ROOT


def test_the_template_names_every_field_and_is_not_filled_in():
    template = ROOT / "docs" / "about_evaluation.json"
    assert list(json.loads(template.read_text())) == list(FIELDS)
    assert read_about(template) == {}
    assert read_about(None) == {}


def test_what_is_filled_in_is_read(tmp_path):
    path = tmp_path / "about.json"
    path.write_text('{"limits": " one hospital ", "intended_use": "second reading", "contact": ""}')
    assert read_about(path) == {"intended_use": "second reading", "limits": "one hospital"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"intended_us": "x"}', r"has the key 'intended_us' \(did you mean 'intended_use'\?\)"),
        ('{"limits": 3}', "'limits' is to be a text, got 3"),
        ("[]", "expected a JSON object"),
        ("{", "is no JSON"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, text, message):
    path = tmp_path / "about.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=message):
        read_about(path)
    with pytest.raises(BundleError, match="does not exist"):
        read_about(tmp_path / "missing.json")
