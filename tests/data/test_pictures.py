import numpy as np
import pytest
import torch
from monai.data import PersistentDataset
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, RandFlipd, Resized
from PIL import Image

from cleft_bundle.commands.looking import look_at
from cleft_bundle.data import EpochDataset, RadiographReader, cached_dataset, known_pictures, make_splits
from cleft_bundle.data.pictures import PICTURE, describe_shared, picture_digest, read_pictures, shared_pictures
from cleft_bundle.data.pseudonyms import SALT_VARIABLE, keyed_digest, pseudonym
from cleft_bundle.errors import BundleError


@pytest.fixture
def items(tmp_path):
    """Ten patients: 6 shows the picture of 0, 7 that of 1 in another format, 8 and 9 are blank; 0 has two images."""
    drawn = [np.random.default_rng(n).integers(0, 255, (20, 30), np.uint8) for n in range(6)]
    pictures = [*drawn, drawn[0], drawn[1], np.full((20, 30), 9, np.uint8), np.full((20, 30), 9, np.uint8)]
    made = []
    for number, pixels in enumerate(pictures):
        path = tmp_path / f"{number}.{'tif' if number == 7 else 'png'}"
        Image.fromarray(pixels).save(path)
        label = [float(number % 2), float(1 - number % 2)]
        made.append({"image": str(path), "name": path.name, "caption": "c", "label": label,
                     "patient_id": pseudonym(f"p{number}"), "split": None})  # fmt: skip
    again = {**made[0], "name": "again.png"}
    return [*made, again]


def named(items, split_of):
    return [{**item, "split": split_of.get(place, "train")} for place, item in enumerate(items)]


def transform():
    return Compose(
        [
            LoadImaged("image", reader=RadiographReader()),
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            Resized("image", (8, 8)),
            EnsureTyped("image", track_meta=False),
            RandFlipd("image", prob=0.5),
        ]
    )


def test_a_digest_is_of_the_pixels_and_keyed_by_the_salt(items, monkeypatch):
    found = [item[PICTURE] for item in read_pictures(items)]
    assert found[0] == found[6] == found[10]
    assert found[1] == found[7], "the file's format does not matter"
    assert found[8] == found[9] == ""
    assert len({*found} - {""}) == 6
    assert found[0] == keyed_digest(look_at(items[0]["image"]).digest, 8), "as `cleft inspect` tells duplicates"
    monkeypatch.setenv(SALT_VARIABLE, "another")
    assert read_pictures(items)[0][PICTURE] not in found


def test_a_turned_picture_and_another_shape_are_others():
    image = np.random.default_rng(0).random((4, 6), np.float32)
    assert picture_digest(image) != picture_digest(image.T)
    assert picture_digest(image) != picture_digest(image.reshape(3, 8))
    assert picture_digest(image) == picture_digest(torch.from_numpy(image).clone())


@pytest.mark.parametrize("kept_in", ["memory", "files", "half the memory"])
def test_the_cache_knows_the_pictures_and_reads_no_image_twice(kept_in, items, tmp_path, monkeypatch):
    reads = []
    read = RadiographReader.read
    monkeypatch.setattr(
        RadiographReader, "read", lambda self, path, **more: reads.append(path) or read(self, path, **more)
    )
    folder = str(tmp_path / "cache") if kept_in == "files" else None
    rate = 0.5 if kept_in == "half the memory" else 1.0
    dataset = cached_dataset(items[:10], transform(), folder, rate, progress=False)
    if kept_in == "files":
        assert all(PICTURE not in item for item in known_pictures(dataset)), "nothing has been read yet"
        assert isinstance(dataset, PersistentDataset)
    for place in range(10):
        assert dataset[place]["image"].shape == (1, 8, 8)
    known = known_pictures(EpochDataset(dataset))
    expected = [item[PICTURE] for item in read_pictures(items[:10])]
    half = kept_in == "half the memory"
    assert [item.get(PICTURE) for item in known] == (expected[:5] + [None] * 5 if half else expected)
    assert [item["name"] for item in known] == [item["name"] for item in items[:10]]
    assert len(reads) == 20, "each image once by the cache, and once by what it is compared with"


def test_shared_pictures_are_counted_by_split_and_named_by_pseudonym(items):
    known = read_pictures(items)
    splits = {"train": [*known[:5], known[10]], "validation": known[5:7], "test": known[7:10]}
    counts = shared_pictures(splits)
    assert counts["between"] == {"train and validation": 1, "train and test": 1, "validation and test": 0}
    assert counts["within"] == {"train": 0, "validation": 0, "test": 0}, "two images of one patient are no finding"
    assert (counts["images"], counts["known"], counts["shared"], counts["images_sharing"]) == (11, 11, 2, 5)
    message = describe_shared(counts)
    assert "2 pictures are the same under different patients (1 between train and validation" in message
    assert pseudonym("p0") in message
    assert ".png" not in message
    assert shared_pictures({"train": known[:8]})["within"] == {"train": 2}
    assert describe_shared(shared_pictures({"train": known[:6], "test": known[8:10]})) == ""
    assert shared_pictures({"train": items})["known"] == 0


def test_dropped_pictures_stay_in_the_last_split_alone(items, caplog):
    given = named(items, {5: "validation", 6: "validation", 7: "test", 8: "test", 9: "test"})
    kept = make_splits(given, shared_pictures="drop")
    assert [item["name"] for item in kept["train"]] == ["2.png", "3.png", "4.png"], "0 (twice) and 1 are left out"
    assert [item["name"] for item in kept["validation"]] == ["5.png", "6.png"]
    assert [item["name"] for item in kept["test"]] == ["7.tif", "8.png", "9.png"]
    assert "train: 3 images left out" in caplog.text
    again = make_splits([item for part in kept.values() for item in part], shared_pictures="error")
    assert again == kept, "and nothing is left to complain of"


def test_shared_pictures_can_be_an_error_and_cost_nothing_by_default(items, monkeypatch):
    given = named(items, {5: "validation", 6: "validation", 7: "test"})
    with pytest.raises(BundleError, match=r"2 pictures are the same.*set shared_pictures to 'drop'") as caught:
        make_splits(given, shared_pictures="error")
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="shared_pictures: expected one of warn, drop, error, got 'keep'"):
        make_splits(given, shared_pictures="keep")
    monkeypatch.setattr(RadiographReader, "read", None)
    assert len(make_splits(given)["train"]) == 8


def test_a_file_that_cannot_be_read_has_no_picture(items, tmp_path):
    (tmp_path / "0.png").write_bytes(b"no picture")
    (first, second) = read_pictures(items[:2])
    assert PICTURE not in first
    assert second[PICTURE]
