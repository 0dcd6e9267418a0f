import os

import pytest
import torch

from cleft_bundle.checkpoints import save
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
