import pytest
import torch

from cleft_bundle.checkpoints import save
from cleft_bundle.files import load


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
