"""Both towers leave by one command: of ``cleft.pt`` and its config, a folder that transformers loads."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from cleft_bundle.checkpoints import TrainedState, save
from cleft_bundle.commands.configs import read_config
from cleft_bundle.commands.export import export
from cleft_bundle.errors import BundleError
from tests import processes
from tests.configs.conftest import bundle_error

SIZES = {
    "image_size": 28,
    "image_backbone#image_size": 28,
    "image_backbone#hidden_size": 24,
    "text_backbone#n_embd": 32,
}
CAPTIONS = ["no finding", "a chest x-ray with edema"]


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """A network of the default config whose adapters are no longer zero, and the folder of its ``cleft.pt``."""
    parser = read_config(str(root / "configs" / "train.json"), SIZES)
    network, tokenize = (parser.get_parsed_content(name) for name in ("network_def", "tokenize"))
    with torch.no_grad():
        draw = torch.Generator().manual_seed(0)
        for parameter in network.trained_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    folder = tmp_path_factory.mktemp("trained")
    save(TrainedState(network).state_dict(), folder / "cleft.pt")
    return network.eval(), tokenize, folder


def test_the_dual_encoder_is_written_by_the_config_of_its_training(trained, root, model_pt):
    network, tokenize, folder = trained
    words = ["--forms", "transformers,dual_encoder", "--text", "merged", "--checkpoint", "cleft.pt", "--out", "m"]
    words += ["--model_path", str(model_pt), "--config_file", str(root / "configs" / "train.json")]
    options = [word for key, value in SIZES.items() for word in (f"--{key}", str(value))]
    done = processes.run(["-m", "cleft_bundle", "export", *words, *options], folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.glob("m_*")} == {"m_transformers", "m_dual_encoder"}
    assert "m_dual_encoder: " in done.stdout
    model = AutoModel.from_pretrained(folder / "m_dual_encoder", trust_remote_code=True).eval()
    tokens = model.tokenize(AutoTokenizer.from_pretrained(folder / "m_dual_encoder"), CAPTIONS)
    image = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model.get_image_features(image), network.encode_image(image), atol=1e-6, rtol=0)
        texts = network.encode_text(**tokenize(CAPTIONS))
        torch.testing.assert_close(model.get_text_features(**tokens), texts, atol=1e-6, rtol=0)
    transforms = json.loads((folder / "m_dual_encoder" / "cleft.json").read_text())["preprocessing"]["transforms"]
    assert {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.5, "divisor": 0.25} in transforms


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"forms": ["dual_encodr"]}, "forms: expected one of torchscript, .*, timm, dual_encoder, got 'dual_encodr'"),
        ({"forms": ["timm"], "image_size": 28}, "there is no option --image_size"),
        ({"text": "both"}, "text: expected one of adapter, merged, got 'both'"),
        (
            {},
            "the dual encoder cannot be written, as unfreeze_text trained .*: pass text merged",
        ),
        ({"checkpoint": "none.pt"}, "none.pt"),
        ({"image_backbone#num_hidden_layers": 2}, "does not fit the network"),
    ],
)
def test_what_cannot_be_exported_is_named(options, says, trained, root):
    folder = trained[-1]
    known = {"checkpoint": str(folder / "cleft.pt"), "out": str(folder / "none")}
    config = [str(root / "configs" / "train.json")]
    given = {"forms": ["dual_encoder"], "config_file": config, **known, **options}
    given |= SIZES if given["forms"] == ["dual_encoder"] else {}
    with pytest.raises((BundleError, RuntimeError)) as caught:
        export(**given)
    assert re.search(says, bundle_error(caught))
    assert not list(folder.glob("none*"))
