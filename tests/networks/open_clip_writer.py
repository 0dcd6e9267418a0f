"""Saves checkpoints of open_clip's families by open_clip itself, as it ships them; needs open_clip.

``python -m tests.networks.open_clip_writer`` writes tests/fixtures/open_clip anew, with what open_clip makes of them.
"""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP, set_model_preprocess_cfg
from open_clip.push_to_hf_hub import save_config_for_hf, save_for_hf
from timm.models import register_model
from timm.models.vision_transformer import _create_vision_transformer, default_cfgs

from tests.networks.open_clip_families import (
    CAPTIONS,
    FAMILIES,
    FIXTURES,
    STATISTICS,
    config_of,
    pixels,
    save_bert,
    tokenizer_of,
)


@cache
def register_nano() -> None:
    """Let timm, and with it open_clip, know vision transformers of two blocks."""
    size = {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2}

    def vit_nano_patch14_28(pretrained: bool = False, **kwargs: Any) -> Any:
        return _create_vision_transformer("vit_base_patch16_224", pretrained=pretrained, **size | kwargs)

    def vit_nano_patch14_siglip_28(pretrained: bool = False, **kwargs: Any) -> Any:
        own = size | {"class_token": False, "global_pool": "map"}
        return _create_vision_transformer("vit_base_patch16_siglip_224", pretrained=pretrained, **own | kwargs)

    for function in (vit_nano_patch14_28, vit_nano_patch14_siglip_28):
        function.__module__ = _create_vision_transformer.__module__
        default_cfgs[function.__name__] = default_cfgs["vit_base_patch16_224"]
        register_model(function)


def save_open_clip(folder: Path, family: str, form: bool | str = True) -> dict[str, torch.Tensor]:
    """Save a checkpoint by open_clip and return what it makes of :func:`pixels` and :data:`CAPTIONS`.

    ``form`` is open_clip's ``safe_serialization``.
    """
    register_nano()
    folder.mkdir(parents=True)
    config = config_of(family, save_bert(folder.parent / f"{folder.name}_bert", family))
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = (CustomTextCLIP if custom else CLIP)(**config).eval()
        for parameter in model.parameters():  # norms and biases start at ones and zeros, which hide a mistake
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    if custom:
        config |= {"custom_text": True}
    set_model_preprocess_cfg(model, STATISTICS | {"size": (28, 28), "interpolation": "bicubic"})
    if family == "simple":  # without files of a tokenizer open_clip takes its own
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
        save_config_for_hf(model, folder / "open_clip_config.json", config)
    else:
        save_for_hf(model, tokenizer_of(family), config, str(folder), safe_serialization=form)
    return as_open_clip_embeds(folder)


@torch.no_grad()
def as_open_clip_embeds(folder: Path) -> dict[str, torch.Tensor]:
    """Embeddings of images and captions, and the tokens of these, by open_clip."""
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    found = {"image": F.normalize(model.encode_image(pixels()), dim=-1), "tokens": tokens}
    found |= {"text": F.normalize(model.encode_text(tokens), dim=-1), "scale": model.logit_scale.exp().detach()}
    return found | ({} if model.logit_bias is None else {"bias": model.logit_bias.detach()})


def main() -> None:
    """Write the fixtures."""
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as place:
            expected = save_open_clip(Path(place) / family, family)
            path = Path(place) / family / "open_clip_config.json"
            path.write_text(path.read_text().replace(f"{place}/{family}_bert", "bert"))
            shutil.rmtree(FIXTURES / family, ignore_errors=True)
            shutil.copytree(Path(place) / family, FIXTURES / family)
        text = json.dumps({name: value.tolist() for name, value in expected.items()})
        (FIXTURES / family / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
