"""inference_onnx.json gives the predictions of inference.json, from the ONNX file alone."""

import json
import subprocess
import sys

import pytest

from cleft_bundle.checkpoints import load_classifier
from cleft_bundle.packaging import export_classifier
from tests.configs.conftest import ROOT

pytest.importorskip("onnxscript", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def predictions(folder):
    content = json.loads((folder / "predictions.json").read_text())
    return {row["image"]: [row[name] for name in content["class_names"]] for row in content["predictions"]}


def test_predictions_are_those_of_pytorch(run_config, model_pt, chest_phantoms, tmp_path):
    alone = tmp_path / "alone"  # where no model.pt is
    (exported,) = export_classifier(load_classifier(model_pt), alone / "model", ["onnx"])
    given = {"dataset_dir": chest_phantoms, "num_workers": 0}
    run_config(["inference.json"], model_path=str(model_pt), output_dir=str(tmp_path / "torch"), **given)
    onnx = {"model_path": str(exported), "output_dir": str(tmp_path / "onnx"), "num_threads": 1}
    run_config(["inference.json", "inference_onnx.json"], **onnx, **given)
    expected, found = predictions(tmp_path / "torch"), predictions(tmp_path / "onnx")
    assert found.keys() == expected.keys()
    assert len(expected) >= 60
    assert len({tuple(scores) for scores in expected.values()}) > 50
    for name, scores in expected.items():
        assert found[name] == pytest.approx(scores, abs=1e-4)


@pytest.mark.slow
def test_neither_peft_nor_mlflow_is_imported(model_pt, chest_phantoms, tmp_path):
    (exported,) = export_classifier(load_classifier(model_pt), tmp_path / "model", ["onnx"])
    code = f"""
import sys
sys.modules["peft"] = sys.modules["mlflow"] = None
from monai.bundle import run
configs = [{str(ROOT / "configs" / "inference.json")!r}, {str(ROOT / "configs" / "inference_onnx.json")!r}]
run(config_file=configs, model_path={str(exported)!r}, dataset_dir={chest_phantoms!r}, output_dir={str(tmp_path)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(predictions(tmp_path)) >= 60
