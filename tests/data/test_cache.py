import time

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    RandFlipd,
    Resized,
    SpatialPadd,
)
from pydicom.uid import JPEG2000Lossless
from torch.utils.data import DataLoader

import cleft_bundle
from cleft_bundle.data import RadiographCache, RadiographReader, cache, cached_dataset
from cleft_bundle.errors import BundleError, RadiographError
from cleft_bundle.transforms import OrientRadiographd
from tests import processes
from tests.data.radiographs import PHI, make_dicom, scene


def steps(size=24, **reader):
    return [
        LoadImaged("image", reader=RadiographReader(**reader)),
        EnsureChannelFirstd("image", channel_dim="no_channel"),
        Resized("image", size, size_mode="longest", mode="area"),
        SpatialPadd("image", [size, size]),
    ]


@pytest.fixture
def items(tmp_path):
    (tmp_path / "CANARY-ID").mkdir()
    window = {"WindowCenter": [2000, 1000], "WindowWidth": [4000, 500]}
    paths = [make_dicom(tmp_path / "CANARY-ID" / f"{n}.dcm", np.roll(scene(), n, 0), **PHI, **window) for n in range(3)]
    return [{"image": path, "caption": f"CANARY caption {n}", "patient_id": "CANARY"} for n, path in enumerate(paths)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def files(folder):
    return sorted(folder.iterdir())


def read(monkeypatch, items, transform, folder, **options):
    """The images of a dataset, and how many of them were read from their own files."""
    count = 0
    get_data = RadiographReader.get_data

    def counted(self, img):
        nonlocal count
        count += 1
        return get_data(self, img)

    with monkeypatch.context() as patch:
        patch.setattr(RadiographReader, "get_data", counted)
        images = [item["image"] for item in RadiographCache(items, transform, folder, **options)]
    return images, count


def test_the_second_epoch_reads_no_image_and_equals_the_first(monkeypatch, items, folder):
    plain = [Compose(steps())(item)["image"] for item in items]
    first, read_first = read(monkeypatch, items, Compose(steps()), folder)
    second, read_second = read(monkeypatch, items, Compose(steps()), folder)
    assert (read_first, read_second) == (3, 0)
    for images in zip(plain, first, second, strict=True):
        for image in images[1:]:
            assert torch.equal(image.as_tensor(), images[0].as_tensor())
            assert image.meta.keys() == images[0].meta.keys()
            for key, value in image.meta.items():
                assert isinstance(value, str) or type(value) is type(images[0].meta[key])
            assert image.meta["filename_or_obj"] == images[0].meta["filename_or_obj"]


def test_cached_transforms_can_be_inverted(items, folder):
    transform = Compose(steps()[:-1])
    for dataset in (RadiographCache(items, transform, folder), RadiographCache(items, transform, folder)):
        item = dataset[0]
        assert item["image"].shape == (1, 24, 16)
        assert transform.transforms[2].inverse(item)["image"].shape == (1, 48, 32)


def test_captions_bypass_the_cache(monkeypatch, items, folder):
    read(monkeypatch, items, Compose(steps()), folder)
    changed = [{**item, "caption": "another", "label": 1} for item in items]
    assert [item["caption"] for item in RadiographCache(changed, Compose(steps()), folder)] == ["another"] * 3
    assert len(files(folder)) == 3


def test_only_what_comes_before_the_first_random_transform_is_kept(monkeypatch, items, folder):
    flipped = RandFlipd("image", prob=1.0, spatial_axis=1)
    images, _ = read(monkeypatch, items, Compose([*steps(), flipped]), folder)
    plain, count = read(monkeypatch, items, Compose(steps()), folder)
    assert count == 0
    assert torch.equal(images[0].as_tensor(), plain[0].as_tensor().flip(2))


@pytest.mark.parametrize(
    "changed",
    [
        steps(voi=1),
        steps(voi="percentile"),
        steps(size=25),
        [*steps(), Lambdad("image", lambda x: x + 1)],
    ],
)
def test_changed_transforms_never_get_what_others_made(monkeypatch, items, folder, changed):
    before, _ = read(monkeypatch, items, Compose(steps()), folder)
    after, count = read(monkeypatch, items, Compose(changed), folder)
    assert count == 3
    assert before[0].shape != after[0].shape or not torch.equal(before[0].as_tensor(), after[0].as_tensor())
    _, count = read(monkeypatch, items, Compose(steps()), folder)
    assert count == 0


def test_functions_differ_by_their_code_and_by_what_they_close_over():
    def add(number):
        return Lambdad("image", lambda x: x + number)

    assert cache.settings([add(1)]) == cache.settings([add(1)])
    assert cache.settings([add(1)]) != cache.settings([add(2)])
    assert cache.settings([Lambdad("image", np.log1p)]) != cache.settings([Lambdad("image", np.log)])


def test_settings_that_cannot_be_told_are_an_error(items, folder):
    step = Lambdad("image", lambda x: x)
    step.table = {(1, 2): 3}
    with pytest.raises(BundleError, match="cache_dir: the settings of Lambdad cannot be told"):
        RadiographCache(items, Compose([step]), folder)


def test_a_changed_version_or_salt_reads_again(monkeypatch, items, folder):
    read(monkeypatch, items, Compose(steps()), folder)
    monkeypatch.setattr(cleft_bundle, "__version__", "99.0")
    assert read(monkeypatch, items, Compose(steps()), folder)[1] == 3
    monkeypatch.setenv("CLEFT_BUNDLE_SALT", "secret")
    images, count = read(monkeypatch, items, Compose(steps()), folder)
    assert count == 3
    assert images[0].meta["patient"] == cleft_bundle.data.pseudonym("CANARY-ID")


def test_a_changed_file_is_read_again(monkeypatch, items, folder):
    before, _ = read(monkeypatch, items, Compose(steps()), folder)
    make_dicom(items[1]["image"], scene()[::-1], **PHI)
    after, count = read(monkeypatch, items, Compose(steps()), folder)
    assert count == 1
    assert not torch.equal(before[1].as_tensor(), after[1].as_tensor())


def test_content_identifies_moved_files_on_request(monkeypatch, items, folder, tmp_path):
    read(monkeypatch, items, Compose(steps()), folder, by_content=True)
    (tmp_path / "CANARY-ID").rename(tmp_path / "moved")
    moved = [{**item, "image": item["image"].replace("CANARY-ID", "moved")} for item in items]
    images, count = read(monkeypatch, moved, Compose(steps()), folder, by_content=True)
    assert count == 0
    assert images[0].meta["filename_or_obj"] == moved[0]["image"]
    make_dicom(moved[0]["image"], scene()[::-1], **PHI)
    assert read(monkeypatch, moved, Compose(steps()), folder, by_content=True)[1] == 1


def test_names_and_content_tell_nothing_of_patients_or_paths(monkeypatch, items, folder, tmp_path):
    read(monkeypatch, items, Compose(steps()), folder)
    for file in files(folder):
        assert len(file.stem) == 48
        assert int(file.stem, 16)
        content = file.read_bytes()
        for secret in ("CANARY", "1970", PHI["StudyInstanceUID"], str(tmp_path), items[0]["image"]):
            assert secret.encode() not in content


def test_metadata_of_unknown_names_is_not_kept(items, folder):
    def leak(image):
        return MetaTensor(image, meta={**image.meta, "PatientName": "CANARY"})

    for _ in range(2):
        image = RadiographCache(items, Compose([*steps(), Lambdad("image", leak)]), folder)[0]["image"]
        assert "PatientName" not in image.meta


@pytest.mark.parametrize("content", [b"", b"PK half a file", b"\x80\x02."])
def test_a_broken_cache_file_is_made_anew(monkeypatch, items, folder, content):
    read(monkeypatch, items, Compose(steps()), folder)
    whole = files(folder)[0].read_bytes()
    for damage in (content, whole[: len(whole) // 2]):
        files(folder)[0].write_bytes(damage)
        assert read(monkeypatch, items, Compose(steps()), folder)[1] == 1
        assert read(monkeypatch, items, Compose(steps()), folder)[1] == 0


def test_an_unreadable_image_leaves_nothing_behind(folder, tmp_path):
    (tmp_path / "notes.dcm").write_text("no image")
    for name in ("notes.dcm", "missing.dcm"):
        dataset = RadiographCache([{"image": str(tmp_path / name)}], Compose(steps()), folder)
        with pytest.raises(RuntimeError) as error:
            dataset[0]
        assert isinstance(error.value.__cause__, RadiographError)
    assert files(folder) == []


def test_new_items_delete_no_cache(items, folder):
    dataset = RadiographCache(items[:2], Compose(steps()), folder)
    assert len(list(dataset)) == 2
    dataset.set_data(items)
    assert len(list(dataset)) == 3
    assert len(files(folder)) == 3


def fill(items, folder, started, slow):
    """Fill a cache from another process; a slow one stays within its first write until it is killed."""
    if slow:

        def save(content, stream):
            stream.write(b"half of it")
            stream.flush()
            started.set()
            time.sleep(60)

        torch.save = save
    else:
        started.wait()
    list(RadiographCache(items, Compose(steps()), folder))


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_no_half_file(monkeypatch, items, folder):
    processes.kill_at_work(fill, items, folder)
    assert [file.name.startswith(".writing.") for file in files(folder)] == [True]
    images, count = read(monkeypatch, items, Compose(steps()), folder)
    assert count == 3
    assert torch.equal(images[0].as_tensor(), Compose(steps())(items[0])["image"].as_tensor())


@pytest.mark.slow
def test_two_processes_fill_one_cache_together(monkeypatch, items, folder):
    context = processes.forked()
    started = context.Event()
    both = [context.Process(target=fill, args=(items * 20, folder, started, False)) for _ in range(2)]
    for process in both:
        process.start()
    started.set()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(files(folder)) == 3
    assert read(monkeypatch, items, Compose(steps()), folder)[1] == 0


def test_without_a_folder_the_cache_is_in_memory(items, folder):
    dataset = cached_dataset(items, Compose(steps()), cache_rate=0.67, progress=False)
    assert isinstance(dataset, CacheDataset)
    assert dataset.cache_num == 2
    assert isinstance(cached_dataset(items, Compose(steps()), str(folder)), RadiographCache)


@pytest.mark.filterwarnings("ignore:blank")
def test_blank_images_in_memory_are_counted(tmp_path, items, caplog):
    blank = {"image": make_dicom(tmp_path / "blank.dcm", np.full((48, 32), 7, np.uint16))}
    cached_dataset([*items, blank], Compose(steps()), progress=False)
    assert "1 of 4 cached images are blank: all their pixels have one value" in caplog.messages
    caplog.clear()
    cached_dataset(items, Compose(steps()), progress=False)
    assert "blank" not in caplog.text


def doubtful(tmp_path, items):
    """A blank image and one of an unknown orientation, a lateral chest's, before three that are neither."""
    blank = make_dicom(tmp_path / "blank.dcm", np.full((48, 32), 7, np.uint16))
    lateral = make_dicom(tmp_path / "lateral.dcm", PatientOrientation=["A", "F"], ViewPosition="LL")
    return [{"image": blank}, {"image": lateral}, *items]


TOTALS = (
    "1 of 5 cached images are blank: all their pixels have one value",
    "1 of 5 cached images are left as they lie: no rule is known for the orientation that their header names",
)


@pytest.mark.filterwarnings("ignore:blank")
@pytest.mark.parametrize("cached", ["memory", "files"])
def test_blank_images_and_unknown_orientations_are_counted_once(tmp_path, items, folder, caplog, cached):
    oriented = Compose([*steps()[:2], OrientRadiographd("image"), *steps()[2:]])
    items = doubtful(tmp_path, items)
    for _ in range(2):  # filled, and read back
        dataset = cached_dataset(items, oriented, str(folder) if cached == "files" else None, progress=False)
        for _ in range(3):
            list(dataset)
        assert [text for text in caplog.messages if text.endswith(TOTALS)] == list(TOTALS)
        caplog.clear()


@pytest.mark.filterwarnings("ignore:blank")
def test_workers_count_together_and_a_share_of_a_set_is_counted_in_its_second_epoch(tmp_path, items, folder):
    dataset = RadiographCache(doubtful(tmp_path, items), Compose(steps()), folder)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, sampler=[0, 2, 4])  # as one process of two
    list(loader)
    assert dataset.tally.counts()["blank"] == 1
    assert not dataset.tally.told[0]
    list(loader)
    assert dataset.tally.told[0]


def test_a_cached_epoch_is_twenty_times_faster(tmp_path, folder):
    pixels = np.tile(scene(), (50, 40))
    items = [{"image": make_dicom(tmp_path / f"{n}.dcm", pixels, JPEG2000Lossless)} for n in range(3)]
    dataset = RadiographCache(items, Compose(steps(224)), folder)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        assert len(list(dataset)) == 3
        seconds.append(time.perf_counter() - start)
    assert min(seconds[1:]) * 20 < seconds[0]


def test_settings_are_those_of_before_once_transforms_have_been_used():
    steps = [Resized("image", 8, size_mode="longest", mode="area"), SpatialPadd("image", (8, 8))]
    before = cache.settings(steps)
    Compose(steps)({"image": MetaTensor(torch.rand(1, 16, 12))})
    assert cache.settings(steps) == before
