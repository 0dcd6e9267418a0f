import numpy as np
import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.reports.evaluation.combined import Combination

NAMES = ["bacterial", "none", "viral"]


def test_the_scores_of_classes_that_exclude_each_other_are_added_up():
    combination = Combination(NAMES, "multiclass", '{"pneumonia": ["bacterial", "viral"]}')
    assert combination.class_names == ["pneumonia", "none"]
    np.testing.assert_allclose(combination(np.array([[0.5, 0.25, 0.25]])), [[0.75, 0.25]])
    assert np.isnan(combination(np.full((1, 3), np.nan))).all()


def test_nothing_given_changes_nothing():
    combination = Combination(NAMES, "multilabel", None)
    assert combination.class_names == NAMES
    assert not combination.changes


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("multilabel", '{"p": ["bacterial"]}', "can occur together"),
        ("multiclass", '{"p": ["bacteria"]}', r"'bacteria' is no class \(did you mean 'bacterial'\?\)"),
        ("multiclass", '{"p": ["viral"], "q": ["viral"]}', "'viral' stands in two lists"),
        ("multiclass", '{"p": "viral"}', "expected an object such as"),
        ("multiclass", '{"none": ["viral", "bacterial"]}', "'none' is the name of another class"),
        ("multiclass", '{"all": ["viral", "bacterial", "none"]}', "fewer than two classes are left"),
        ("multiclass", "missing.json", "there is no file missing.json"),
    ],
)
def test_what_cannot_be_added_up_is_an_error(task, given, message):
    with pytest.raises(BundleError, match=message):
        Combination(NAMES, task, given)
