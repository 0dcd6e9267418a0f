import os
import random

import pytest
from mlflow.utils.validation import _validate_metric_name

from cleft_bundle.names import MOST, column, joined, mlflow_name, plain_name, printable

PARTS = [
    "a",
    "B",
    "_",
    "x",
    "0028",
    "_x0028_",
    "/",
    "..",
    ".",
    "(",
    ")",
    " ",
    "\n",
    "ü",
    "😀",
    ":",
    "%",
    "_xFFFFFF_",
    "#",
]


def texts(parts, count, seed=0):
    draw = random.Random(seed)  # noqa: S311 - no secret
    return {"".join(draw.choices(parts, k=draw.randint(1, 6))) for _ in range(count)}


def test_mlflow_names_are_valid_and_no_two_texts_share_one():
    given = texts(PARTS, 20_000)
    mapped = {mlflow_name(text) for text in given}
    assert len(mapped) == len(given)
    for name in mapped:
        _validate_metric_name(name)
        assert "\n" not in name


def test_long_names_stay_apart():
    names = [mlflow_name("n" * 300 + end) for end in ("a", "b", "(")]
    assert len(set(names)) == 3
    assert max(map(len, names)) <= MOST


@pytest.mark.parametrize(("name", "expected"), [
    ("edema", "edema"), ("error", "class:error"), ("class:error", "class:class:error"), ("class:edema", "class:edema"),
    ("Error", "Error"),
])  # fmt: skip
def test_a_class_is_called_like_no_fixed_column(name, expected):
    assert column(name, ("image", "error")) == expected


def test_columns_stay_apart():
    names = texts(["class:", "error", "image", "x"], 500)
    columns = {column(name, ("image", "error")) for name in names}
    assert len(columns) == len(names)
    assert not columns & {"image", "error"}


def test_names_joined_in_a_cell_can_be_told_apart():
    assert joined(["a", "b|c", "d\\"]) == "a|b\\|c|d\\\\"


def test_paths_of_any_bytes_are_printable_and_stay_apart():
    assert printable("Müller/a\\b.dcm") == "Müller/a\\b.dcm"
    assert printable(os.fsdecode(b"M\xfcller.dcm")) == "M\\xfcller.dcm"
    paths = texts([os.fsdecode(b"\xfc"), "\\", "\\xfc", "x", "ü", "/"], 5000)
    shown = [printable(path) for path in paths]
    assert len(set(shown)) == len(paths)
    assert all(text.encode() for text in shown)


def test_plain_names_have_lower_case_and_single_blanks():
    assert plain_name(" Pleural\n Effusion ") == "pleural effusion"
