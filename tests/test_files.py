import os

import pytest
import torch

from cleft_bundle import files
from cleft_bundle.checkpoints import save
from cleft_bundle.errors import BundleError
from cleft_bundle.files import file_stamp, load


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("cannot be saved")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.pt"
    save({"x": torch.ones(2)}, path)
    with pytest.raises(RuntimeError, match="cannot be saved"):
        save({"x": Unpicklable()}, path)
    assert torch.equal(load(path, "")["x"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_folders_are_made(tmp_path):
    save({"x": 1}, tmp_path / "new" / "a.pt")
    assert load(tmp_path / "new" / "a.pt", "") == {"x": 1}


def test_a_stamp_changes_with_size_time_and_place(tmp_path):
    file, other = tmp_path / "a", tmp_path / "b"
    assert file_stamp(file) == ""
    for path in (file, other):
        path.write_text("one")
        os.utime(path, ns=(5, 7))
    assert file_stamp(file) == file_stamp(other) == "3-7"
    assert file_stamp(file, inode=True) != file_stamp(other, inode=True)
    os.utime(file, ns=(5, 8))
    assert file_stamp(file) == "3-8"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "prompts does not exist: write it"),
        (b"{\n 1", "prompts is no JSON: line 2, Expecting property name enclosed in double quotes"),
        (b"\xff{}", "prompts is no JSON: expected UTF-8 text"),
        (b"[1]", "prompts: expected a JSON object, got list"),
        (b'{"a": {"b": 1, "b": 2}}', "prompts: key 'b' is repeated"),
    ],
)
def test_a_file_that_holds_no_json_object_is_one_line(content, says, tmp_path):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        files.read_object(tmp_path / "a.json", "prompts", ": write it")
    assert str(caught.value) == says


def test_a_json_object_is_typed_or_named(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.given_object(str(tmp_path / "a.json"), "x") == files.given_object(' {"a": 1}', "x") == {"a": 1}
    with pytest.raises(BundleError, match=r"x: there is no file none\.json; expected one, or a JSON object"):
        files.given_object("none.json", "x")
