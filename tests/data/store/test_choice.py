"""Where images are kept, and why."""

import logging
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import CacheDataset
from monai.transforms import Compose, Lambdad
from PIL import Image

from cleft_bundle.data import RadiographCache, RadiographStore, cached_dataset
from cleft_bundle.data.store import choice
from cleft_bundle.data.store.free_memory import free_memory
from cleft_bundle.errors import BundleError
from tests.data.store.test_dataset import steps


@pytest.fixture
def items(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (4, 30, 20), dtype=np.uint8)
    for number, row in enumerate(rows):
        Image.fromarray(row).save(tmp_path / f"{number}.png")
    return [{"image": str(tmp_path / f"{number}.png")} for number in range(4)]


def auto(items, monkeypatch, caplog, memory, disk=10**12, **options):
    """The dataset, and what the log says of the choice."""
    caplog.set_level(logging.INFO)
    caplog.clear()
    monkeypatch.setattr(choice, "free_memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=disk))
    dataset = cached_dataset(items, Compose(steps()), cache="auto", progress=False, **options)
    return dataset, [text for text in caplog.messages if text.startswith("cache: ")]


def test_small_sets_are_kept_in_memory_and_large_ones_nowhere_without_a_folder(items, monkeypatch, caplog):
    needed = 4 * (24 * 24 * 4 + 4096)
    dataset, said = auto(items, monkeypatch, caplog, 2 * needed)
    assert isinstance(dataset, CacheDataset)
    assert dataset.cache_num == 4
    assert said[0].startswith("cache: memory, 4 images of 1x24x24 take 0.0 GB of memory in 1 processes, and 0.0 GB are")
    dataset, said = auto(items, monkeypatch, caplog, 2 * needed - 2)
    assert dataset.cache_num == 0
    assert said[0].startswith("cache: none, ")
    assert said[0].endswith("--cache_dir FOLDER keeps them in a store on a disk")
    assert len(dataset[3]["image"]) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert auto(items, monkeypatch, caplog, 4 * needed - 4)[0].cache_num == 0
    assert auto(items, monkeypatch, caplog, 2 * needed, cache_rate=0.5)[0].cache_num == 2


def test_a_folder_takes_a_store_where_its_disk_has_room(items, monkeypatch, caplog, tmp_path):
    folder = str(tmp_path / "deep" / "cache")
    dataset, said = auto(items, monkeypatch, caplog, 0, disk=4 * 24 * 24 * 2 + 1, cache_dir=folder)
    assert isinstance(dataset, RadiographStore)
    assert said[0].startswith("cache: store, as cache_dir says: 4 images of 1x24x24")
    dataset, said = auto(items, monkeypatch, caplog, 10**9, disk=4 * 24 * 24 * 2, cache_dir=folder)
    assert isinstance(dataset, CacheDataset)
    assert len(said) == 1


def test_an_empty_or_unreadable_set_is_left_to_what_reads_it(items, monkeypatch, caplog, tmp_path):
    dataset, said = auto([], monkeypatch, caplog, 10**9)
    assert len(dataset) == 0
    assert said == []
    with pytest.raises(RuntimeError):
        auto([{"image": str(tmp_path / "missing.png")}], monkeypatch, caplog, 10**9)
    assert auto(items, monkeypatch, caplog, 10**9, cache_rate=0.0)[1] == []


def test_each_way_can_be_asked_for(items, tmp_path):
    kinds = {"memory": CacheDataset, "store": RadiographStore, "files": RadiographCache, "none": CacheDataset}
    images = []
    for cache, kind in kinds.items():
        folder = str(tmp_path / cache) if cache in ("store", "files") else None
        dataset = cached_dataset(items, Compose(steps()), folder, cache=cache, progress=False)
        assert type(dataset) is kind
        images.append(dataset[1]["image"].as_tensor())
    for image in images[1:]:
        torch.testing.assert_close(image, images[0], atol=0.5 / 255 + 1e-6, rtol=0)
    for cache in ("store", "files"):
        with pytest.raises(BundleError, match=f"cache: {cache} needs a folder"):
            cached_dataset(items, Compose(steps()), cache=cache)
    with pytest.raises(BundleError, match="cache: expected one of auto, memory, store, files, none, got 'disk'"):
        cached_dataset(items, Compose(steps()), cache="disk")


def test_other_errors_of_transforms_go_through(items):
    with pytest.raises(RuntimeError):
        cached_dataset(items, Compose([*steps(), Lambdad("image", lambda _: 1 / 0)]), cache="auto")


@pytest.mark.parametrize(("line", "place", "names"), [
    ("0::/job/step", "job", ("memory.max", "memory.current", "inactive_file")),
    ("4:memory:/job/step", "memory/job", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
])  # fmt: skip
def test_limits_of_groups_above_the_process_count(tmp_path, line, place, names):
    before = free_memory(tmp_path)
    assert 0 < before <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"9:cpu:/\n{line}\n")
    group = tmp_path / "sys/fs/cgroup" / place
    (group / "step").mkdir(parents=True)
    (group / "step" / names[0]).write_text("max\n")
    for name, content in ((names[0], "5000000\n"), (names[1], "3000000\n"), ("memory.stat", f"{names[2]} 1000000\n")):
        (group / name).write_text(content)
    assert free_memory(tmp_path) == 3_000_000
