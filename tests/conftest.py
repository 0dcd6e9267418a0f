"""Fixtures that several rooms share."""

from __future__ import annotations

import gc
import json
import os
import re
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Siglip2Tokenizer

from cleft_bundle.checkpoints import save
from cleft_bundle.data import CaptionTokenizer
from cleft_bundle.networks import CLEFT, ImageEncoder, Lora, TextEncoder, ZeroShotClassifier, load_tokenizer
from cleft_bundle.networks.backbones import load_backbone
from cleft_bundle.packaging.wheel import write_wheel
from tests import processes
from tests.installed import Elsewhere, install
from tests.mlflow_databases import migrate_once

# generating examples is slow, not wrong, where other processes keep the cores busy
settings.register_profile("busy_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy_machine")

if "PYTEST_XDIST_WORKER" in os.environ:  # workers side by side, and what they start, take a core each
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Let files be handed to workers in the order of collection, see below."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of the most slow tests, so that no worker is left with a long one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """Let the collector of garbage leave out the million objects that stay, those of what has been imported."""
    gc.collect()
    gc.freeze()


ROOT = Path(__file__).resolve().parent.parent
TINY_VIT = {
    "model_type": "dinov2_with_registers",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_register_tokens": 2,
    "patch_size": 14,
    "image_size": 28,
}
TINY_GPT2 = {
    **{"model_type": "gpt2", "vocab_size": 768, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2},
    **{"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},  # so that training mode is deterministic
}


def tiny_dual_encoder(model_type: str) -> dict[str, Any]:
    """Config of a CLIP or SigLIP of random weights, for images of 28 px and the tokens of tokenizer_tiny."""
    tokenizer = load_tokenizer(str(ROOT / "configs" / "tokenizer_tiny"))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    return {
        "model_type": model_type,
        "text_config": {**size, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 24}
        | ({"projection_size": 16} if model_type != "clip" else {}),
        "vision_config": {**size, "image_size": 28, "num_patches": 4, "patch_size": 14},
        **({"projection_dim": 16} if model_type == "clip" else {}),
    }


def words_of_prompts() -> list[str]:
    """The words of the class prompts, which the tiny tokenizers know."""
    texts = [path.read_text().lower() for path in (ROOT / "configs/prompts").glob("*.json")]
    return sorted(set(re.findall(r"\w+", " ".join(texts))))


def _tiny_tokenizer(model_type: str) -> PreTrainedTokenizerBase:
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    single = "<bos> $A <eos>" if model_type == "clip" else "$A <eos>"
    ends = processors.TemplateProcessing(single=single, special_tokens=[("<bos>", 0), ("<eos>", 1)])
    if model_type == "siglip2":  # of characters: its own class has byte pairs
        characters = {text: number for number, text in enumerate([*special.values(), *"▁abcdefghijklmnopqrstuvwxyz"])}
        tokenizer = Siglip2Tokenizer(characters, [])
        tokenizer._tokenizer.post_processor = ends
        return tokenizer
    words = {word: number for number, word in enumerate([*special.values(), *words_of_prompts()])}
    backend = Tokenizer(models.WordLevel(words, unk_token=special["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if model_type == "clip":
        backend.normalizer = normalizers.Lowercase()
    backend.post_processor = ends
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **special | ({"pad_token": "<eos>"} if model_type == "siglip" else {})
    )


def save_dual_encoder(folder: Path, model_type: str) -> str:
    """Save a small random dual encoder as its family ships: model, image processor and tokenizer.

    CLIP's tokenizer begins and ends every text and lower-cases; SigLIP's ends it and pads with the same token; that of
    SigLIP 2 pads on the left.
    """
    _tiny_tokenizer(model_type).save_pretrained(folder)
    values = tiny_dual_encoder(model_type)
    values["text_config"] |= {"vocab_size": 512, "max_position_embeddings": 96 if model_type == "siglip2" else 32}
    values["text_config"] |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    load_backbone(values, "dual_encoder").save_pretrained(folder)
    statistics = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    common = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, **statistics}
    side = {"height": 28, "width": 28}
    own = {
        "clip": {"size": {"shortest_edge": 28}, "do_center_crop": True, "crop_size": side, "resample": 3},
        "siglip": {"size": side, "resample": 3},
        "siglip2": {"patch_size": 14, "max_num_patches": 4, "resample": 2},
    }[model_type]
    kind = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[model_type]
    processor = {"image_processor_type": f"{kind}ImageProcessor", **common, **own}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def migrated_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """New databases of MLflow are copies of one, here and in the processes of tests.processes."""
    processes.database = str(tmp_path_factory.mktemp("mlflow") / "migrated.db")
    migrate_once(processes.database)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared real data beside the checkout, or the one that CLEFT_BUNDLE_SHARED names."""
    path = Path(os.environ.get("CLEFT_BUNDLE_SHARED", ROOT.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"needs the shared data folder, which is not at {path}; set CLEFT_BUNDLE_SHARED")
    return path


@pytest.fixture(scope="session")
def tokenize() -> CaptionTokenizer:
    """The tokenizer of the embedded default."""
    return CaptionTokenizer(load_tokenizer(str(ROOT / "configs" / "tokenizer_tiny")), max_length=32)


@pytest.fixture
def make_network() -> Callable[..., CLEFT]:
    """Build a very small CLEFT; keyword arguments go to the text tower."""

    def make(**text: Any) -> CLEFT:
        arguments = {"backbone": TINY_GPT2, "peft": Lora(r=2), "embedding_dim": 8} | text
        return CLEFT(ImageEncoder(TINY_VIT, embedding_dim=8), TextEncoder(**arguments))

    return make


@pytest.fixture(scope="session")
def classifier() -> ZeroShotClassifier:
    """A very small classifier of random weights whose scores tell images of 56 px apart."""
    side = 56
    transforms = [
        {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "cleft_bundle.data.RadiographReader"}},
        {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
        {"_target_": "Resized", "keys": "image", "spatial_size": side, "size_mode": "longest", "mode": "area"},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [side, side]},
        {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.5, "divisor": 0.25},
        {"_target_": "RepeatChanneld", "keys": "image", "repeats": 3},
        {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
    ]
    vit = TINY_VIT | {"hidden_size": 32, "image_size": side, "layerscale_value": 1.0, "initializer_range": 0.1}
    names = ["edema", "pleural effusion", "no finding"]
    network = ZeroShotClassifier(
        ImageEncoder(vit, embedding_dim=16), names, "multilabel", {"image_size": side, "transforms": transforms}
    )
    network.class_weights = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    network.logit_scale = torch.tensor(0.5)
    return network.eval()


@pytest.fixture(scope="session")
def model_pt(classifier: ZeroShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the very small classifier."""
    path = tmp_path_factory.mktemp("models") / "model.pt"
    save(classifier.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return write_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """A machine that has the wheel and nothing else of this checkout."""
    return install(wheel, tmp_path_factory.mktemp("elsewhere") / "venv")


@pytest.fixture
def images() -> torch.Tensor:
    """Four normalised images."""
    return torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def train_config() -> dict[str, Any]:
    """The content of configs/train.json."""
    return json.loads((ROOT / "configs" / "train.json").read_text())


@pytest.fixture
def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
