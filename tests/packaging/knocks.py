"""What others do with the zip and the wheel, in one process of a machine that has nothing else; prints JSON.

Usage: python knocks.py, in a folder that holds models/cleft_bundle, the unpacked zip, as MONAI's model zoo has it.
"""

import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from monai.bundle import (
    ConfigParser,
    ckpt_export,
    create_workflow,
    load,
    onnx_export,
    verify_metadata,
    verify_net_in_out,
)
from monai.data import MetaTensor

ZOO = Path.cwd()
BUNDLE = Path("models", "cleft_bundle")  # relative, as ci/verify_bundle.py has it
META, CONFIG = BUNDLE / "configs/metadata.json", BUNDLE / "configs/inference.json"


def zoo_metadata():
    verify_metadata(meta_file=str(META), filepath="schema.json")


def zoo_properties():
    workflow = create_workflow(
        workflow_type="inference",
        bundle_root=str(BUNDLE),
        config_file=str(CONFIG),
        logging_file=str(BUNDLE / "configs/logging.conf"),
        meta_file=str(META),
    )
    return workflow.check_properties()


def zoo_data_shape():
    verify_net_in_out("network_def", str(META), str(CONFIG), bundle_root=str(BUNDLE))


def zoo_torchscript():
    """Without a trace, as nobody asks for one."""
    ckpt_export(
        net_id="network_def",
        filepath="verify_model.ts",
        ckpt_file=str(BUNDLE / "models/model.pt"),
        meta_file=str(META),
        config_file=str(CONFIG),
        bundle_root=str(BUNDLE),
    )
    return _difference(torch.jit.load("verify_model.ts"))


def parser_in_the_bundle():
    os.chdir(BUNDLE)
    try:
        verify_net_in_out("network_def", "configs/metadata.json", "configs/inference.json")
        parser = ConfigParser()
        parser.read_config("configs/train.json")
        return parser.get_parsed_content("class_names")
    finally:
        os.chdir(ZOO)


def onnx_in_the_bundle():
    os.chdir(BUNDLE)
    try:
        options = {"input_names": ["image"], "output_names": ["pred"], "dynamo": True}
        options["dynamic_shapes"] = {"image": {0: "batch"}}
        files = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.json"}
        onnx_export(
            "network_def",
            str(ZOO / "model.onnx"),
            ckpt_file="models/model.pt",
            input_shape=[2, 3, 56, 56],
            use_trace=True,
            converter_kwargs=options,
            **files,
        )
        return (ZOO / "model.onnx").stat().st_size > 1000
    finally:
        os.chdir(ZOO)


def load_for_inference():
    network = load("cleft_bundle", workflow_type="inference", bundle_dir="models", source="github")
    return {"difference": _difference(network), "left_behind": (BUNDLE / "eval").exists()}


def load_by_default():
    load("cleft_bundle", bundle_dir="models", source="github")


def monai_deploy():
    """What MonaiBundleInferenceOperator takes out of a TorchScript file, without a model.pt, in an empty folder."""
    path = (BUNDLE / "models/model.ts").resolve()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        os.chdir(folder)
        try:
            parser = ConfigParser()
            parser.read_meta(f=json.loads(archive.read("model/extra/metadata.json")))
            archive.extractall(members=["model/extra/inference.json"], path=folder)
            parser.read_config([Path(folder, "model/extra/inference.json")])
            parser.parse()
            inferer, transforms = (parser.get_parsed_content(name) for name in ("inferer", "preprocessing"))
            kept = [step for step in transforms.transforms if "LoadImage" not in type(step).__name__]
            data = {"image": MetaTensor(torch.rand(80, 70))}
            for step in kept:
                data = step(data)
            scores = inferer(inputs=data["image"][None], network=torch.jit.load(path).eval())
        finally:
            os.chdir(ZOO)
    outputs = parser["_meta_"]["network_data_format"]["outputs"]["pred"]["num_channels"]
    return list(scores.shape) == [1, outputs]


def _difference(network):
    """The largest difference of a score from the classifier's own."""
    from cleft_bundle.checkpoints import load_classifier  # noqa: PLC0415 - after the zoo has set its path

    classifier = load_classifier(BUNDLE / "models/model.pt")
    images = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((network.cpu().eval()(images) - classifier(images)).abs().max())


KNOCKS = (zoo_metadata, zoo_properties, zoo_data_shape, zoo_torchscript, parser_in_the_bundle)
KNOCKS += (onnx_in_the_bundle, load_for_inference, load_by_default, monai_deploy)

if __name__ == "__main__":
    sys.path = [str(BUNDLE), *sys.path]  # as the zoo does
    import cleft_bundle

    found = {"package": {"result": cleft_bundle.__file__}}
    for knock in KNOCKS:
        try:
            found[knock.__name__] = {"result": knock()}
        except Exception as error:
            found[knock.__name__] = {"error": f"{type(error).__name__}: {error}"}
    Path("found.json").write_text(json.dumps(found))
