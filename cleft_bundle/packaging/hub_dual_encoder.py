"""The dual encoder as a folder for transformers, with its own few lines of code (``trust_remote_code``).

transformers' VisionTextDualEncoderModel projects without a bias and pools otherwise; docs/hub.md says more.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save_file

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks import CLEFT, DualEncoder, Frozen, TextEncoder
from cleft_bundle.networks.weight_names import renamed
from cleft_bundle.packaging import hub, hub_code
from cleft_bundle.packaging.hub_code.configuration_cleft import CleftConfig
from cleft_bundle.packaging.places import DESCRIPTION, written_whole

Text = Literal["adapter", "merged"]
Tokenize = Callable[[Sequence[str]], dict[str, torch.Tensor]]
_PROBE = "no finding"
_SHOWN = 8  # numbers of the probe's embedding that the config keeps


def export_dual_encoder(
    network: CLEFT,
    tokenize: Tokenize,
    folder: str | Path,
    preprocessing: Mapping[str, Any],
    text: Text = "adapter",
    text_source: str | None = None,
) -> Path:
    """Write both towers; those of a :class:`cleft_bundle.networks.DualEncoder` as a model of its own family.

    Args:
        network: the trained network, without a learnt prompt, its projections linear.
        tokenize: the tokenizer of the training, see :class:`cleft_bundle.data.CaptionTokenizer`.
        folder: is made, and takes its name when it is whole; an earlier export is replaced.
        preprocessing: as classifiers keep it, see :func:`cleft_bundle.packaging.hub.processor_config`.
        text: ``adapter`` writes what was trained of the language model beside the name of the model itself, whose
            frozen weights stay where they are; ``merged`` writes the whole model with the adapter in its weights.
        text_source: hub id of the language model; by default what the network was built from.

    Returns:
        the folder.

    Raises:
        BundleError: where the folder is there and no export, the network is no CLEFT, or has a part that the form
            cannot hold: a learnt prompt, an ``mlp`` projection, a logit bias, a prefix, and, for ``adapter``, a
            language model trained in other ways or made from a config.
    """
    require_one_of("text", text, get_args(Text))
    folder = Path(folder)
    _check(network, text, text_source)
    processor = hub.processor_config(preprocessing)
    with written_whole(folder) as place:
        place.mkdir()
        if isinstance(network, DualEncoder):
            network.library_model().save_pretrained(place)  # its own architecture, adapters within the weights
            tokenize.tokenizer.save_pretrained(place)  # type: ignore[attr-defined]
        else:
            _write(copy.deepcopy(network).eval(), tokenize, place, text, text_source)
        hub.write_json(place / hub.PROCESSOR, processor)
        hub.write_json(place / DESCRIPTION, {"preprocessing": dict(preprocessing)})
    return folder


def _write(network: CLEFT, tokenize: Tokenize, folder: Path, text: Text, text_source: str | None) -> None:
    """Write both towers, their code and the tokenizer; the network is used up."""
    config = _config(network, tokenize, text_source)
    weights = _weights(network)
    if text == "merged":
        model = _merged(network.text_encoder)
        config.text_config = _values(model.config)
        weights |= {f"text_model.{name}": value for name, value in model.state_dict().items()}
    elif not isinstance(network.text_encoder.peft, Frozen):
        adapter = network.text_encoder.backbone
        adapter.peft_config["default"].base_model_name_or_path = config.text_source
        adapter.save_pretrained(folder / "adapter", save_embedding_layers=False)
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
    config.save_pretrained(folder)
    save_file(
        {n: v.detach().clone().contiguous().cpu() for n, v in weights.items()}, folder / hub.WEIGHTS, {"format": "pt"}
    )
    tokenize.tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    for name in ("configuration_cleft.py", "modeling_cleft.py"):
        shutil.copy(Path(str(hub_code.__file__)).with_name(name), folder / name)


def _check(network: CLEFT, text: Text, text_source: str | None) -> None:
    if not isinstance(network, CLEFT):
        raise BundleError(f"dual_encoder: a {type(network).__name__} is no CLEFT; export takes what train.json trains")
    if isinstance(network, DualEncoder):
        if network.prompt is not None:
            raise BundleError("transformers: the dual encoder cannot be written, as it has a learnt prompt")
        return
    encoder, tower = network.text_encoder, network.image_encoder
    trained = {name for name, p in encoder.language_model.named_parameters() if p.requires_grad}
    adapted = {name for name in trained if any(part in name for part in (".lora_", ".ia3_"))}
    whole = "full" if encoder.peft.name == "full" else "unfreeze_text"
    reasons = {
        "it has a learnt prompt: export the cleft.pt of before, or model.pt": network.prompt is not None,
        "its projection is an mlp": not (
            isinstance(tower.projection, torch.nn.Linear) and isinstance(encoder.projection, torch.nn.Linear)
        ),
        f"its image tower is a {type(tower.backbone).__name__} with pooling {tower.pooling}": tower.pooling == "pooled"
        or tower.prefix_tokens != 1 + getattr(tower.backbone.config, "num_register_tokens", 0),
        "it has a logit bias": network.logit_bias is not None,
        "its language model is adapted by a prefix": encoder.peft.name == "prefix",
        f"{whole} trained weights that no adapter holds: pass text merged": text == "adapter" and trained != adapted,
        "its language model comes from a config and is nowhere else: pass text merged": text == "adapter"
        and text_source is None
        and encoder.source.endswith(" from a config"),
    }
    if found := [reason for reason, true in reasons.items() if true]:
        raise BundleError(f"transformers: the dual encoder cannot be written, as {found[0]}")


def _config(network: CLEFT, tokenize: Tokenize, text_source: str | None) -> CleftConfig:
    tokens = tokenize([_PROBE])
    with torch.no_grad():
        embedding = network.encode_text(**{n: v.to(network.logit_scale.device) for n, v in tokens.items()})[0]
    return CleftConfig(
        vision_config=_values(network.image_encoder.backbone.config),
        text_source=text_source or network.text_encoder.source,
        text_probe={name: value[0].tolist() for name, value in tokens.items()}
        | {"embedding": embedding[:_SHOWN].tolist()},
        embedding_dim=network.image_encoder.embedding_dim,
        pooling=network.image_encoder.pooling,
        hidden_size=network.text_encoder.hidden_size,
        text_pooling=network.text_encoder.pooling,
        caption_tokens=getattr(tokenize, "max_length", 64),
        architectures=["CleftModel"],
        auto_map={"AutoConfig": "configuration_cleft.CleftConfig", "AutoModel": "modeling_cleft.CleftModel"},
    )


def _weights(network: CLEFT) -> dict[str, torch.Tensor]:
    backbone = network.image_encoder.merged().backbone
    names = [name for name, _ in [*backbone.named_parameters(), *backbone.named_buffers()]]
    vision = renamed(backbone.state_dict(), names)
    return {
        **{f"vision_model.{name}": value for name, value in vision.items()},
        **{f"visual_projection.{n}": v for n, v in network.image_encoder.projection.state_dict().items()},
        **{f"text_projection.{n}": v for n, v in network.text_encoder.projection.state_dict().items()},
        "logit_scale": network.scale.log(),
    }


def _merged(encoder: TextEncoder) -> Any:
    model = encoder.backbone.float()
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _values(config: Any) -> dict[str, Any]:
    """A config as plain values, without the place that it was loaded from."""
    values = config.to_diff_dict() | {"model_type": config.model_type}
    values.pop("_name_or_path", None)
    return values
