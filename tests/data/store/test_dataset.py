"""The store of images: what it gives back, what it never gives back, and what ends a process in the middle."""

import itertools
import logging
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    RandFlipd,
    RepeatChanneld,
    Resized,
    SpatialPadd,
)
from PIL import Image

import cleft_bundle
from cleft_bundle.data import RadiographReader, RadiographStore, known_pictures
from cleft_bundle.data.pictures import keeping_pictures
from cleft_bundle.data.store import filling
from cleft_bundle.errors import BundleError
from cleft_bundle.transforms import OrientRadiographd
from tests import processes
from tests.data.radiographs import PHI, make_dicom, scene


def steps(size=24, padded=True):
    pad = [SpatialPadd("image", [size, size])] if padded else []
    return [
        LoadImaged("image", reader=RadiographReader()),
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        Resized("image", size, size_mode="longest", mode="area"),
        *pad,
    ]


@pytest.fixture
def items(tmp_path):
    folder = tmp_path / "CANARY [1] #2"
    folder.mkdir()
    paths = [make_dicom(folder / f"CANARY{n}.dcm", np.roll(scene(), n, 0), **PHI) for n in range(5)]
    return [{"image": path, "caption": f"CANARY caption {n}", "patient_id": "CANARY"} for n, path in enumerate(paths)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "stores # [all]"


def opened(items, folder, transform=None, **options):
    return RadiographStore(items, transform or Compose(steps()), folder, **{"num_workers": 0, **options})


def count_reading(monkeypatch):
    count = [0]
    get_data = RadiographReader.get_data

    def counted(self, img):
        count[0] += 1
        return get_data(self, img)

    monkeypatch.setattr(RadiographReader, "get_data", counted)
    return count


def test_each_image_is_read_once_and_comes_back_within_half_a_step(monkeypatch, items, folder):
    plain = [Compose(steps())(item)["image"] for item in items]
    count = count_reading(monkeypatch)
    first = [item["image"] for item in opened(items, folder)]
    assert count == [5]
    second = list(opened(items, folder))
    assert count == [5]
    for original, one, item in zip(plain, first, second, strict=True):
        two = item["image"]
        assert torch.equal(one.as_tensor(), two.as_tensor())
        assert float((two.as_tensor().double() - original.as_tensor().double()).abs().max()) <= 0.5 / 65535 + 6e-8
        assert two.dtype == torch.float32
        assert two.meta.keys() == original.meta.keys()
        for key, value in original.meta.items():
            assert type(two.meta[key]) is type(value) or isinstance(value, str | np.generic)
            np.testing.assert_array_equal(np.asarray(two.meta[key]), np.asarray(value))
    assert [item["caption"] for item in second] == [item["caption"] for item in items]


def test_pictures_of_eight_bits_come_back_as_they_were(tmp_path, folder):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)
    pixels[0, :2] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    items = [{"image": str(tmp_path / "a.png")}]
    plain = Compose(steps())(items[0])["image"].as_tensor()
    stored = opened(items, folder)
    assert torch.equal(stored[0]["image"].as_tensor(), plain)
    assert stored.shelves[0].kind.bits == 8
    Image.fromarray(pixels.astype(np.uint16) * 257 + 3).save(tmp_path / "b.png")
    assert [filling.bits_of(str(tmp_path / name)) for name in ("a.png", "b.png")] == [8, 16]


def test_what_comes_before_random_and_network_transforms_is_kept_and_shared(monkeypatch, items, folder):
    count = count_reading(monkeypatch)
    network = [NormalizeIntensityd("image", subtrahend=0.5, divisor=0.25), RepeatChanneld("image", repeats=3)]
    flipped = opened(items, folder, Compose([*steps(), RandFlipd("image", prob=1.0, spatial_axis=1), *network]))
    validated = opened(items, folder, Compose([*steps(), *network]))
    assert count == [5]
    assert flipped[0]["image"].shape == (3, 24, 24)
    assert torch.equal(flipped[0]["image"].as_tensor(), validated[0]["image"].as_tensor().flip(2))
    exact = Compose([*steps(), *network])(items[0])["image"].as_tensor()
    torch.testing.assert_close(validated[0]["image"].as_tensor(), exact, atol=4 * 0.5 / 65535 + 1e-6, rtol=0)


def test_stored_transforms_can_be_inverted(items, folder):
    transform = Compose(steps(padded=False))
    item = opened(items, folder, transform)[0]
    assert item["image"].shape == (1, 24, 16)
    assert transform.transforms[2].inverse(item)["image"].shape == (1, 48, 32)


def test_changed_files_transforms_versions_and_salts_are_filled_in_anew(monkeypatch, items, folder, caplog):
    caplog.set_level(logging.INFO)
    before = opened(items, folder)
    count = count_reading(monkeypatch)
    make_dicom(items[1]["image"], scene()[::-1], **PHI)
    after = opened(items, folder)
    assert count == [1]
    assert not torch.equal(before[1]["image"].as_tensor(), after[1]["image"].as_tensor())
    assert "others in" not in caplog.text
    opened(items, folder, Compose([*steps(), Lambdad("image", lambda x: x / 2)]))
    assert count == [6]
    assert "a new store is filled; 1 others in" in caplog.text
    monkeypatch.setattr(cleft_bundle, "__version__", "99.0")
    opened(items, folder)
    assert count == [11]
    monkeypatch.setenv("CLEFT_BUNDLE_SALT", "secret")
    opened(items, folder)
    assert count == [16]


def test_names_and_content_tell_nothing_of_patients_or_paths(items, folder):
    opened(items, folder, keeping_pictures(Compose(steps())))
    for file in folder.rglob("*"):
        assert "CANARY" not in str(file.relative_to(folder))
        if file.is_file():
            for secret in ("CANARY", "1970", PHI["StudyInstanceUID"], items[0]["image"]):
                assert secret.encode() not in file.read_bytes()


def test_images_of_different_shapes_have_arrays_of_their_own_and_too_many_are_refused(monkeypatch, tmp_path, folder):
    items = [{"image": make_dicom(tmp_path / f"{n}.dcm", scene()[: 20 + 8 * n])} for n in range(3)]
    dataset = opened(items, folder, Compose(steps(padded=False)))
    assert len({tuple(item["image"].shape) for item in dataset}) == 3 == len(dataset.shelves)
    monkeypatch.setattr(filling, "_KINDS", 2)
    with pytest.raises(BundleError, match="wants images of one shape, and these have more than 2"):
        opened(items, tmp_path / "other", Compose(steps(padded=False)))


def test_values_beyond_0_to_1_are_kept_by_the_range_of_their_image(items, folder):
    transform = Compose([*steps(), Lambdad("image", lambda x: x * 7 - 3)])
    for item, original in zip(opened(items, folder, transform), items, strict=True):
        exact = transform(original)["image"].as_tensor()
        assert float((item["image"].as_tensor() - exact).abs().max()) <= 0.5 * 7 / 65535 + 1e-6
    with pytest.raises(BundleError, match="not all finite"):
        opened(items, folder, Compose([*steps(), Lambdad("image", lambda x: x / 0)]))


def test_unreadable_images_are_told_in_one_line_and_the_others_are_kept(monkeypatch, items, folder, tmp_path):
    (tmp_path / "notes.dcm").write_text("no image")
    bad = [{"image": str(tmp_path / name)} for name in ("notes.dcm", "missing.dcm")]
    with pytest.raises(BundleError, match=r"2 of 7 images cannot be read, the first: .*notes.dcm: is not") as error:
        opened([items[0], *bad, *items[1:]], folder)
    assert "\n" not in str(error.value)
    count = count_reading(monkeypatch)
    assert len(list(opened(items, folder))) == 5
    assert count == [0]


def test_an_empty_set_needs_nothing(folder):
    assert list(opened([], folder)) == []
    assert not folder.exists()


@pytest.mark.parametrize(("part", "torn"), [("pixels", 1), ("meta", 5), ("index", 1)])
def test_torn_ends_are_cut_off_and_filled_in_anew(monkeypatch, items, folder, part, torn):
    whole = [item["image"].as_tensor() for item in opened(items, folder)]
    count = count_reading(monkeypatch)
    (file,) = folder.rglob(f"*.{part}")
    content = file.read_bytes()
    for ending, expected in ((content[:-3], torn), (content + b"torn", torn)):  # the five share their metadata
        file.write_bytes(ending)
        found = [item["image"].as_tensor() for item in opened(items, folder)]
        assert all(map(torch.equal, found, whole))
        assert count == [expected]


def test_a_full_disk_is_told_in_one_line_and_what_is_filled_stays(monkeypatch, items, folder):
    monkeypatch.setattr(filling, "_BATCH", 1)
    monkeypatch.setattr(filling, "_SETTLED", 0.0)
    write, written = filling.Appender._write, itertools.count()

    def full(self, part, content):
        if part == "pixels" and next(written) == 3:
            write(self, part, content[:100])
            raise OSError(28, "No space left on device")
        write(self, part, content)

    with monkeypatch.context() as patch:
        patch.setattr(filling.Appender, "_write", full)
        with pytest.raises(BundleError, match=r"cache_dir: .* 5 images: No space left on device; those"):
            opened(items, folder)
    count = count_reading(monkeypatch)
    assert len(list(opened(items, folder))) == 5
    assert count == [2]


def test_a_whole_store_is_read_where_nobody_may_write(monkeypatch, items, folder):
    opened(items, folder)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(filling.FolderLock, "acquire", refuse)
    assert len(list(opened(items, folder))) == 5
    with pytest.raises(BundleError, match="cannot be written to: Read-only file system"):
        opened(items, folder, Compose(steps(size=20)))


def test_a_pickled_dataset_carries_no_pixels_and_feeds_workers(items, folder):
    dataset = opened(items * 20, folder)
    dataset[0]
    assert len(pickle.dumps(dataset)) < 60_000
    loader = DataLoader(dataset, batch_size=10, num_workers=2)
    assert sum(len(batch["image"]) for batch in loader) == 100


def test_workers_fill_and_pictures_are_known(items, folder, monkeypatch):
    transform = keeping_pictures(Compose(steps()))
    dataset = opened(items, folder, transform, num_workers=2)
    alone = opened(items, Path(f"{folder}2"), transform)
    assert dataset.pictures() == alone.pictures()
    assert len(set(dataset.pictures())) == 5
    assert known_pictures(dataset)[3]["picture"] == dataset.pictures()[3]
    for one, two in zip(dataset, alone, strict=True):
        assert torch.equal(one["image"].as_tensor(), two["image"].as_tensor())


@pytest.mark.filterwarnings("ignore:blank")
def test_blank_images_and_unknown_orientations_are_told_whenever_the_store_is_opened(tmp_path, items, folder, caplog):
    blank = make_dicom(tmp_path / "blank.dcm", np.full((48, 32), 7, np.uint16))
    lateral = make_dicom(tmp_path / "lateral.dcm", PatientOrientation=["A", "F"], ViewPosition="LL")
    oriented = Compose([*steps()[:2], OrientRadiographd("image"), *steps()[2:]])
    for _ in range(2):
        opened([{"image": blank}, {"image": lateral}, *items], folder, oriented)
        assert sum("1 of 7 cached images are blank" in text for text in caplog.messages) == 1
        assert sum("1 of 7 cached images are left as they lie" in text for text in caplog.messages) == 1
        caplog.clear()


def test_metadata_of_unknown_names_is_not_kept(items, folder):
    def leak(image):
        return MetaTensor(image, meta={**image.meta, "PatientName": "CANARY"})

    assert "PatientName" not in opened(items, folder, Compose([*steps(), Lambdad("image", leak)]))[0]["image"].meta


def fill(items, folder, started, slow):
    """Fill a store from another process; a slow one is stopped by a signal behind its third image."""
    filling._BATCH, filling._SETTLED = 1, 0.0
    if slow:
        get_data, count = RadiographReader.get_data, itertools.count()

        def slowly(self, img):
            if next(count) == 3:
                started.set()
                time.sleep(60)
            return get_data(self, img)

        RadiographReader.get_data = slowly
    opened(items, folder)


@pytest.mark.slow
def test_a_process_killed_while_it_fills_leaves_what_it_filled(monkeypatch, items, folder):
    processes.kill_at_work(fill, items, folder)
    count = count_reading(monkeypatch)
    images = [item["image"].as_tensor() for item in opened(items, folder)]
    assert count == [2]
    monkeypatch.undo()
    again = [item["image"].as_tensor() for item in opened(items, Path(f"{folder}2"))]
    assert all(map(torch.equal, images, again))


@pytest.mark.slow
def test_two_processes_take_turns_and_fill_a_store_once(items, folder):
    context = processes.forked()
    idle = context.Event()
    both = [context.Process(target=fill, args=(items, folder, idle, False)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    (shelf,) = opened(items, folder).shelves
    assert len(shelf.records) == 5
