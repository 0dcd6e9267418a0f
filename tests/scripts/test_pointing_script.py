import pytest
import torch
from PIL import Image

from cleft_bundle.networks import ImageEncoder, ZeroShotClassifier
from tests import processes
from tests.conftest import TINY_VIT
from tests.transforms.test_original_pixels import preset_declared


@pytest.mark.slow
def test_the_game_is_played_on_phantoms_that_are_drawn_for_it(root, tmp_path):
    names = ["edema", "pleural effusion", "consolidation", "pneumothorax", "no finding"]
    settings = {"image_size": 56, "transforms": preset_declared("train.json", 56)}
    classifier = ZeroShotClassifier(ImageEncoder(TINY_VIT, embedding_dim=8), names, "multilabel", settings)
    torch.nn.init.normal_(classifier.class_weights, generator=torch.Generator().manual_seed(0))
    torch.save(classifier.state_dict(), tmp_path / "model.pt")
    command = [str(root / "scripts" / "pointing_game.py"), "--dataset_dir", "phantom_chest_v1_n6_s0"]
    command += ["--model_path", "model.pt", "--methods", "[similarity,attention]", "--pictures", "shown"]
    done = processes.run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    assert rows[0][:5] == ["finding", "images", "similarity, 0 px", "attention, 0 px", "chance, 0 px"]
    assert {row[0] for row in rows[2:]} <= set(names[:-1])
    assert all(0 <= float(cell) <= 1 for row in rows[2:] for cell in row[2:])
    pictures = sorted((tmp_path / "shown").iterdir())
    assert pictures
    assert all(256 <= side <= 320 for side in Image.open(pictures[0]).size)
    assert not any("patient" in path.name for path in pictures)
    again = processes.run([*command[:-2], "--random_seeds", "[1,2,3,4,5,6]"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout != done.stdout
    lost = processes.run([*command, "--model_path", "no.pt"], tmp_path)
    assert lost.returncode == 1
    assert lost.stderr.strip().splitlines()[-1].startswith("error: ")
