import json

import numpy as np
import pytest

from cleft_bundle.apps.monai_label.lib.labels import one_hot, parse_label, read_label
from cleft_bundle.errors import BundleError

CLASSES = ["edema", "pleural effusion", "no finding"]


def rows(**scores):
    return {"prediction": [{"label": name.replace("_", " "), "score": score} for name, score in scores.items()]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"classification": "edema"}, ("edema",)),
        ({"classification": ["pleural effusion", "edema"], "reader": "A"}, ("edema", "pleural effusion")),
        ({"classification": []}, ()),
        (rows(no_finding=0, pleural_effusion=1, edema=1.0), ("edema", "pleural effusion")),
        (rows(edema=0, pleural_effusion=0, no_finding=1), ("no finding",)),
    ],
)
def test_both_forms_are_read_in_the_order_of_the_classes(tmp_path, content, expected):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_label(tmp_path / "a.json", CLASSES, "multilabel") == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"classification": "edma"}, "class 'edma' is unknown (did you mean 'edema'?)"),
        ({"classification": ["edema", "edema"]}, "'edema' is named twice"),
        ({"classification": ["edema", "no finding"]}, "'no finding' stands beside other classes"),
        ({"classification": {"edema": 1}}, "expected the name of a class, or a list of names"),
        ({"classification": "edema", "prediction": []}, "'classification' or 'prediction'"),
        ({"label": "edema"}, "'classification' or 'prediction'"),
        (rows(edema=0.7, pleural_effusion=0, no_finding=0), "'edema': the score 0.7 is no label"),
        (rows(edema=1), "nothing is said of pleural effusion, no finding"),
        (rows(edema=1, pleural_effusion=0, no_finding=0, ascites=0), "class 'ascites' is unknown"),
        ({"prediction": [{"score": 1}]}, "a list of objects with 'label' and 'score'"),
    ],
)
def test_what_is_no_label_is_refused_with_the_reason(content, reason):
    with pytest.raises(BundleError) as caught:
        parse_label(content, CLASSES, "multilabel")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "does not exist"), ("{", "is no JSON"), ("[1]", "a JSON object, got list")]
)
def test_a_file_that_is_no_label_is_named(tmp_path, text, reason):
    path = tmp_path / "b.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BundleError) as caught:
        read_label(path, CLASSES, "multilabel")
    assert str(caught.value).startswith(f"label {path}")
    assert reason in str(caught.value)


def test_multiclass_has_exactly_one():
    assert parse_label({"classification": "edema"}, CLASSES, "multiclass") == ("edema",)
    for given in ([], ["edema", "pleural effusion"]):
        with pytest.raises(BundleError, match="exactly one"):
            parse_label({"classification": given}, CLASSES, "multiclass")


def test_a_label_as_a_vector():
    np.testing.assert_array_equal(one_hot(("pleural effusion",), CLASSES), np.float32([0, 1, 0]))
