import pytest

from cleft_bundle.errors import BundleError, RadiographError, cause_of, causes, nearest, one_line, require_one_of


def test_the_nearest_name_is_offered_whatever_its_case():
    assert nearest("efusion", ["Effusion", "edema"]) == " (did you mean 'Effusion'?)"
    assert nearest("xyz", ["effusion"]) == ""


def test_what_a_library_says_takes_one_line():
    assert one_line(OSError("no\n  such   file")) == "no such file"
    assert one_line("abc def", 3) == "abc"
    assert len(one_line("x" * 999)) == 200
    assert len(one_line("x" * 999, None)) == 999


def test_an_error_of_ours_is_found_behind_those_of_libraries():
    ours, wrapped, wrapping = RadiographError("is empty"), KeyError("transform"), RuntimeError("applying transform")
    wrapped.__cause__, wrapping.__context__ = ours, wrapped
    assert cause_of(wrapping) is ours
    assert [type(cause) for cause in causes(wrapping)] == [RuntimeError, KeyError, RadiographError]
    assert cause_of(ValueError("of nobody")) is None


def test_errors_that_name_each_other_end():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert list(causes(first)) == [first, second]


def test_a_value_that_cannot_be_hashed_is_refused_in_one_line():
    with pytest.raises(BundleError, match=r"task: expected one of a, b, got \['a'\]"):
        require_one_of("task", ["a"], ("a", "b"))
