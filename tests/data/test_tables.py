import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleft_bundle.data import tables
from cleft_bundle.errors import BundleError, nearest


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def refused(call, *words):
    with pytest.raises(BundleError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_columns_are_read_by_name_and_values_are_stripped_text(table):
    path = table("b, a ,unused\n 001 ,x,1\n,y,2\n")
    frame = tables.read_table(path, ["a"], ["b", "absent"])
    assert frame.to_dict("list") == {"b": ["001", ""], "a": ["x", "y"]}


def test_rows_are_numbered_as_in_a_spreadsheet(table):
    frame = tables.read_table(table('a,b\n1,"two\nlines"\n\n3,4\n'), ["a", "b"])
    assert list(frame.index) == [2, 4]
    assert frame.loc[2, "b"] == "two\nlines"


@pytest.mark.parametrize("text", ["\ufeffa,b\n1,2\n", "a;b\n1;2\n", "a\tb\r\n1\t2\r\n"])
def test_tables_that_spreadsheets_write_are_read(table, text):
    assert tables.read_table(table(text), ["a", "b"]).to_dict("list") == {"a": ["1"], "b": ["2"]}


def test_none_reads_every_column(table):
    assert list(tables.read_table(table("a,b,c\n1,2,3\n"), optional=None)) == ["a", "b", "c"]


def test_missing_table_is_named(tmp_path):
    refused(lambda: tables.read_table(tmp_path / "none.csv"), "none.csv", "no such table")


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b\n\n\n"])
def test_empty_table_is_an_error(table, text):
    refused(lambda: tables.read_table(table(text)), "labels.csv", "empty")


def test_missing_column_names_the_nearest_and_those_present(table):
    path = table("Image,finding\nx,y\n")
    refused(lambda: tables.read_table(path, ["image"]), "'image'", "did you mean 'Image'?", "Image, finding")


def test_repeated_column_is_an_error(table):
    refused(lambda: tables.read_table(table("a,a\n1,2\n"), ["a"]), "'a'", "2 times")


def test_unquoted_separator_is_an_error_with_its_row(table):
    refused(lambda: tables.read_table(table("a,b\n1,2\n3,chest, normal\n"), ["a"]), "row 3", "expected 2", "found 3")


def test_other_encodings_are_an_error(table):
    refused(lambda: tables.read_table(table("a\nMüller\n", "latin-1"), ["a"]), "UTF-8")


def test_numbers_and_their_gaps(table):
    path = table("n,m\n1.0,x\n,y\n-1,z\n")
    frame = tables.read_table(path, ["n", "m"])
    np.testing.assert_array_equal(tables.numbers(frame["n"], path, allowed=(-1, 1)), [1.0, np.nan, -1.0])


@pytest.mark.parametrize(("allowed", "bad"), [((0, 1), "7"), (None, "seven"), (None, "inf"), ((0, 1), "nan")])
def test_unknown_numbers_are_counted_and_the_first_row_named(table, allowed, bad):
    path = table(f"n,m\n1,x\n{bad},y\n{bad},z\n")
    column = tables.read_table(path, ["n"])["n"]
    refused(lambda: tables.numbers(column, path, allowed), "'n'", "2 rows", f"'{bad}' in row 3")


def test_nameless_columns_at_the_end_need_no_field(table):
    path = table("a,b,,\n1,2\n3,4,,\n")
    assert tables.read_table(path, ["a", "b"]).to_dict("list") == {"a": ["1", "3"], "b": ["2", "4"]}
    refused(lambda: tables.read_table(table("a,b,,\n1\n"), ["a"]), "row 2", "expected 2 fields", "found 1")


def test_ages_of_tables_and_of_dicom(table):
    path = table("age,m\n58,x\n058Y,x\n006M,x\n003w,x\n073D,x\n,x\n412,x\n0.5,x\n")
    expected = [58, 58, 0.5, 21 / 365.25, 73 / 365.25, np.nan, np.nan, 0.5]
    np.testing.assert_allclose(tables.ages(tables.read_table(path, ["age"])["age"], path), expected)


@pytest.mark.parametrize("bad", ["old", "-4", "58 Y", "nan", "1e2", "58YY"])
def test_what_is_no_age_is_counted(table, bad):
    path = table(f"age,m\n4,x\n{bad},y\n{bad},z\n")
    column = tables.read_table(path, ["age"])["age"]
    refused(lambda: tables.ages(column, path), "'age'", "2 rows", f"'{bad}' in row 3", "058Y")


def test_codes_ignore_case_and_leave_gaps(table):
    path = table("side,m\nL,x\n,y\nright,z\n")
    assert tables.codes(tables.read_table(path, ["side"])["side"], path, tables.SIDES) == ["L", None, "R"]


def test_unknown_codes_name_what_is_expected(table):
    path = table("side\nL\nQ\n")
    column = tables.read_table(path, ["side"])["side"]
    refused(lambda: tables.codes(column, path, tables.SIDES), "'side'", "1 row", "'Q' in row 3", "l, left, r, right")


def test_gaps_and_duplicates_are_counted(table):
    path = table("image,m\na,1\na,1\n,1\na,1\n")
    column = tables.read_table(path, ["image"])["image"]
    refused(lambda: tables.no_gaps(column, path), "'image'", "1 row", "row 4")
    refused(lambda: tables.no_duplicates(column, path), "2 rows", "'a' in row 3")


def test_one_table_is_found_by_its_pattern_and_several_are_an_error(tmp_path):
    refused(lambda: tables.find_table(tmp_path, "clinical*.csv"), "clinical*.csv")
    (tmp_path / "clinical_1.csv").touch()
    assert tables.find_table(tmp_path, "clinical*.csv").name == "clinical_1.csv"
    (tmp_path / "clinical_2.csv").touch()
    refused(lambda: tables.find_table(tmp_path, "clinical*.csv"), "found 2", "clinical_1.csv, clinical_2.csv")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), min_size=1).map(str.strip), min_size=1
    )
)
def test_any_quoted_text_comes_back(table, values):
    quoted = [f'"{value.replace(chr(34), chr(34) * 2)}"' for value in values]
    path = table("a,b\n" + "".join(f"{value},x\n" for value in quoted))
    assert list(tables.read_table(path, ["a", "b"])["a"]) == values


def test_a_far_name_is_not_proposed():
    assert nearest("zzz", ["image"]) == ""
    assert re.search("'image'", nearest("imgae", ["image", "view"]))


def test_a_packed_table_is_read_as_it_is(table, tmp_path):
    plain = table("a,b\n1,x\n")
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(Path(plain).read_bytes()))
    assert tables.read_table(packed, ["a", "b"]).equals(tables.read_table(plain, ["a", "b"]))
    packed.write_bytes(packed.read_bytes()[:-9])
    refused(lambda: tables.read_table(packed, ["a"]), "packed.csv.gz", "not a readable CSV table")
    packed.write_text("a,b\n")
    refused(lambda: tables.read_table(packed, ["a"]), "packed.csv.gz", "not a readable CSV table")
