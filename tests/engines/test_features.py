"""Images that are embedded once keep the digests of their pictures."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from cleft_bundle.checkpoints import TrainedOn
from cleft_bundle.checkpoints.trained_on import recall
from cleft_bundle.data import known_pictures, read_pictures
from cleft_bundle.data.pictures import PICTURE
from cleft_bundle.engines import EmbeddedDataset
from cleft_bundle.engines.features import embed_images, embed_pictured, embed_together
from cleft_bundle.engines.linear_probe import Probing
from cleft_bundle.networks import ImageEncoder
from cleft_bundle.transforms import build_transforms
from tests.conftest import TINY_VIT


@pytest.fixture
def items(tmp_path):
    """Six pictures, the last of which is the first one again, under another patient."""
    found = []
    for number in range(6):
        pixels = np.random.default_rng(number % 5).integers(0, 255, (30, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        found.append({"image": str(tmp_path / f"{number}.png"), "name": str(number), "patient_id": f"{number:016x}"})
    return found


@pytest.fixture
def transform(classifier):
    return build_transforms(classifier.preprocessing["transforms"])


def test_rows_stand_in_the_order_of_the_items_and_their_pictures_are_those_of_the_files(items, transform):
    def encode(image):
        return image.flatten(1).mean(dim=1, keepdim=True)

    rows, pictured = embed_pictured(items, transform, encode, "cpu", batch_size=4)
    alone = torch.cat([encode(transform(dict(item))["image"][None]) for item in items])
    torch.testing.assert_close(rows, alone)
    assert [item[PICTURE] for item in pictured] == [item[PICTURE] for item in read_pictures(items)]
    assert pictured[0][PICTURE] == pictured[5][PICTURE] != pictured[1][PICTURE]
    together, same = embed_together(items, transform, encode, "cpu", 4)
    torch.testing.assert_close(together, rows)
    assert same == pictured
    torch.testing.assert_close(embed_images(items, transform, encode, "cpu", 4), rows)


def test_what_reads_no_file_knows_no_picture():
    held = [{"image": torch.full((1, 2, 2), float(number)), "name": str(number)} for number in range(3)]
    rows, pictured = embed_pictured(held, Compose([]), lambda image: image.flatten(1), "cpu")
    assert rows.shape == (3, 4)
    assert pictured == held


def test_a_training_behind_a_frozen_tower_remembers_its_pictures(items, transform, make_network):
    items = [{**item, "caption": "edema", "label": [1.0]} for item in items]
    train, validation = (EmbeddedDataset(part, transform, make_network(), "cpu") for part in (items[:4], items[4:]))
    trained_on = TrainedOn({"train": items[:4], "validation": items[4:]}, learnt="prompts")
    trained_on.see({"train": known_pictures(train), "validation": known_pictures(validation)})
    shown = recall({"trained_on": trained_on.state_dict()}).pictures
    assert {use: len(digests) for use, digests in shown.items()} == {"learnt": 4, "chosen": 2}
    assert torch.isin(shown["chosen"], shown["learnt"]).sum() == 1


def test_a_probe_says_which_pictures_training_and_test_share(items, transform, tmp_path, caplog):
    labelled = [{**item, "label": np.eye(2)[place % 2].tolist()} for place, item in enumerate(items)]
    splits = {"train": labelled[:2], "validation": labelled[2:4], "test": labelled[4:]}
    towers = {"random": ImageEncoder(TINY_VIT | {"image_size": 56}, seed=1)}
    probe = Probing(towers, splits, "test", [1.0], ["a", "b"], "multiclass", [1.0], str(tmp_path / "no.pt"), 0)
    probe._features(transform, "cpu", 4, 0)
    assert "1 pictures are the same under different patients (1 between train and test;" in caplog.text
