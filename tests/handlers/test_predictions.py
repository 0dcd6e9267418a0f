import csv
import json

import torch
from monai.engines import SupervisedEvaluator

from cleft_bundle.handlers import PredictionWriter

BATCHES = [
    {"image": torch.zeros(1, 1), "path": ["b/x.dcm"], "failures": [{"path": "a,1.dcm", "error": "not a DICOM file"}]},
    {"image": torch.zeros(0, 1), "path": [], "failures": [{"path": "c.png", "error": "truncated"}]},
]


def test_every_image_has_one_row_and_the_unreadable_ones_their_reason(tmp_path):
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=BATCHES,
        network=torch.nn.Identity(),
        inferer=lambda inputs, network: torch.tensor([[0.25, 0.75]]).expand(len(inputs), 2),
        decollate=False,
        val_handlers=[PredictionWriter(str(tmp_path / "out"), ["edema", "no finding"])],
    )
    for _ in range(2):  # a second run replaces the first, it does not add to it
        evaluator.run()
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a,1.dcm", "b/x.dcm", "c.png"]
    assert [row["error"] for row in rows] == ["not a DICOM file", "", "truncated"]
    assert rows[1]["edema"] == "0.250000"
    assert rows[1]["prediction"] == "no finding"
    assert rows[0]["edema"] == ""
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["class_names"] == ["edema", "no finding"]
    assert content["predictions"][1]["no finding"] == 0.75
    assert content["predictions"][2]["edema"] is None
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["predictions.csv", "predictions.json"]
