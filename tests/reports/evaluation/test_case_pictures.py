"""Where the network looked in the cases of a report."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cleft_bundle.data import RadiographReader
from cleft_bundle.inference import HeatMaps
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.reports.evaluation import CasePictures, ScoredImages
from cleft_bundle.reports.evaluation.zero_shot import EvaluationReport
from cleft_bundle.transforms import build_transforms

NAMES = ["edema", "pleural effusion", "no finding"]
TRANSFORMS = [
    {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "cleft_bundle.data.RadiographReader"}},
    {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
    {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.5, "divisor": 0.25},
    {"_target_": "RepeatChanneld", "keys": "image", "repeats": 3},
    {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
]


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_report_and_inference_show_the_same_map(task, make_network, tmp_path):
    network = make_network().eval()
    weights = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    classifier = ZeroShotClassifier.from_cleft(network, NAMES, weights, task, {"transforms": TRANSFORMS})
    classifier.calibrate(0.4, [0.5, 0.0, -1.0], {"edema": 0.5})
    pixels = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")

    maps = HeatMaps(classifier, build_transforms(TRANSFORMS))
    expected = maps(maps.load({"image": str(tmp_path / "image.png")}), NAMES)

    blank = np.zeros((1, 3))
    calibration = {"temperature": 0.4, "bias": {"edema": 0.5, "pleural effusion": 0.0, "no finding": -1.0}}
    item = {"name": "image.png", "patient_id": "1"}
    scored = ScoredImages(NAMES, task, blank, blank, [item], calibration=calibration)
    head = EvaluationReport._head(SimpleNamespace(inferer=SimpleNamespace(weights=weights)), network, scored)
    explain = CasePictures(1, None, build_transforms(TRANSFORMS[2:])).explain_by(network, head, NAMES)
    reader = RadiographReader()
    image = torch.as_tensor(reader.get_data(reader.read(tmp_path / "image.png"))[0])[None]
    found = np.stack([explain(item, image, name) for name in NAMES])
    assert np.abs(found).max() > 1e-4
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-7)
