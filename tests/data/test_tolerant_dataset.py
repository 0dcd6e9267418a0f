import gc
import os

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, Lambdad, LoadImaged
from PIL import Image

from cleft_bundle.data import (
    RadiographReader,
    TolerantDataset,
    begin_reading,
    collate_readable,
    list_images,
    reading_workers,
)
from cleft_bundle.data.tolerant_dataset import is_blank
from cleft_bundle.errors import RadiographError


@pytest.fixture
def folder(tmp_path):
    """Three pictures, a text that calls itself DICOM, and what is to be left out."""
    for index, name in enumerate(["b.png", "a.png", "below/deep/c.png"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (6, 5), dtype=np.uint8)).save(path)
    (tmp_path / "below" / "notes.dcm").write_text("Dear colleague,\nthis is no image.")
    for name in (".hidden", "DICOMDIR", "below/.folder/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


TRANSFORM = Compose(
    [
        LoadImaged("image", reader=RadiographReader()),
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        EnsureTyped("image", track_meta=False),
    ]
)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_files_go_through_with_their_reason(folder, workers):
    data = TolerantDataset(list_images(str(folder)), TRANSFORM)
    (batch,) = DataLoader(data, batch_size=4, num_workers=workers, collate_fn=collate_readable)
    assert batch["image"].shape == (3, 1, 6, 5)
    assert batch["path"] == ["a.png", "b.png", "below/deep/c.png"]
    (failure,) = batch["failures"]
    assert failure["path"] == "below/notes.dcm"
    assert failure["error"].startswith("is not an image that is known here")
    assert "\n" not in failure["error"]
    assert str(folder) not in failure["error"]
    torch.testing.assert_close(batch["image"][1], TRANSFORM({"image": str(folder / "b.png")})["image"])


def test_a_batch_of_failures_is_empty_but_whole():
    batch = collate_readable([{"path": "a", "error": "no"}, {"path": "b", "error": "neither"}])
    assert batch["path"] == []
    assert batch["image"].shape[0] == 0
    assert [failure["path"] for failure in batch["failures"]] == ["a", "b"]


def test_a_batch_without_failures():
    batch = collate_readable([{"image": torch.ones(1, 2, 2), "path": "a", "extra": object()}])
    assert batch["failures"] == []
    assert batch["image"].shape == (1, 1, 2, 2)


@pytest.mark.filterwarnings("ignore:blank")
@pytest.mark.parametrize("transform", [TRANSFORM, Compose([TRANSFORM])], ids=["flat", "nested"])
def test_a_blank_image_gets_its_reason_instead_of_a_score(tmp_path, transform):
    for name, content in (("a.png", np.full((6, 5), 9)), ("b.png", np.arange(30).reshape(6, 5))):
        Image.fromarray(content.astype(np.uint8)).save(tmp_path / name)
    data = TolerantDataset(list_images(str(tmp_path)), transform)
    batch = collate_readable([data[0], data[1]])
    assert batch["failures"] == [{"path": "a.png", "error": "blank"}]
    assert batch["path"] == ["b.png"]
    loading = TolerantDataset([{"image": str(tmp_path / "a.png")}], LoadImaged("image", reader=RadiographReader()))
    assert loading[0] == {"path": str(tmp_path / "a.png"), "error": "blank"}
    assert is_blank(LoadImaged("image", reader=RadiographReader())({"image": str(tmp_path / "a.png")}))


def fail(error):
    def transform(_):
        raise error

    return Compose([Lambdad("image", transform)])


def test_every_other_error_goes_through(folder):
    with pytest.raises(RuntimeError, match="applying transform") as error:
        TolerantDataset(list_images(str(folder)), fail(KeyError("a defect")))[0]
    assert isinstance(error.value.__cause__, KeyError)


def test_a_reason_of_several_lines_becomes_one_and_a_path_is_optional():
    data = TolerantDataset([{"image": "x.dcm"}], fail(RadiographError("x.dcm: first\n  second")))
    assert data[0] == {"path": "x.dcm", "error": "first second"}


def test_one_core_is_left_to_the_network(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert reading_workers() == 3
    assert reading_workers(most=2) == 2
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {5}, raising=False)
    assert reading_workers() == 0


class Collecting(torch.utils.data.Dataset):
    """Collects garbage at each item."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        gc.collect()
        return index


class Session:
    """Garbage that only the collector finds, and that notes the process in which it goes."""

    def __init__(self, note):
        self.note, self.itself = note, self

    def __del__(self):
        with self.note.open("a") as file:
            file.write(f"{os.getpid()} ")


def test_a_reading_process_does_not_collect_what_its_parent_has_left(tmp_path):
    note = tmp_path / "collected"
    gc.collect()
    gc.disable()
    try:
        Session(note)
        loader = torch.utils.data.DataLoader(
            Collecting(), num_workers=1, worker_init_fn=begin_reading, multiprocessing_context="fork"
        )
        assert len(list(loader)) == 2
        assert not note.exists()
        gc.collect()
        assert note.read_text() == f"{os.getpid()} "
    finally:
        gc.enable()


class Niceness(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return os.nice(0)


def test_a_reading_process_gives_way():
    (inside,) = torch.utils.data.DataLoader(Niceness(), num_workers=1, worker_init_fn=begin_reading)
    assert int(inside) == min(os.nice(0) + 5, 19)


def test_the_processes_of_a_machine_share_its_cores_for_reading(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert reading_workers() == 8
    for processes, workers in (("4", 3), ("16", 0), ("32", 0)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert reading_workers() == workers
        assert reading_workers(alone=True) == 8
