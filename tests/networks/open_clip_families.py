"""Small random models of open_clip's families; those under tests/fixtures were saved by open_clip itself."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast, RobertaConfig

from tests.conftest import ROOT, words_of_prompts

FIXTURES = ROOT / "tests/fixtures/open_clip"
FAMILIES = ["clip", "siglip", "biomed"]
VARIANTS = ["quick", "eos", "sigmoid", "roberta", "bert_pooler", "bias", "simple", "siglip_clip"]
CAPTIONS = ["edema", "A chest X ray of a patient with Pleural_effusion.", "No Finding, "]
STATISTICS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
CONTEXT = 32
NATIVE_VISION = {"image_size": 28, "patch_size": 14, "width": 32, "layers": 2, "head_width": 16}
NATIVE_TEXT = {"context_length": CONTEXT, "width": 32, "heads": 2, "layers": 2, "hf_tokenizer_name": "itself"}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def pixels() -> torch.Tensor:
    """Images [3, 3, 28, 28]."""
    return torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def config_of(family: str, bert: Path) -> dict[str, Any]:
    """``model_cfg`` of a family."""
    clip = {"embed_dim": 16, "vision_cfg": NATIVE_VISION, "text_cfg": NATIVE_TEXT | {"vocab_size": 256}}
    timm = {"timm_model_name": "vit_nano_patch14_28", "timm_pool": "", "timm_proj": "linear", "image_size": 28}
    hf = {
        "hf_model_name": str(bert),
        "hf_tokenizer_name": "itself",
        "hf_model_pretrained": False,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 24,
    }
    siglip_text = NATIVE_TEXT | {
        **{"vocab_size": 256, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        **{"norm_kwargs": {"eps": 1e-6}, "tokenizer_kwargs": {"clean": "canonicalize"}},
    }
    siglip_vision = {"timm_model_name": "vit_nano_patch14_siglip_28", "timm_pool": "map", "timm_proj": "none"}
    return {
        "clip": clip,
        "quick": clip | {"quick_gelu": True},
        "eos": clip | {"text_cfg": clip["text_cfg"] | {"pool_type": "eos", "eos_id": 255}},
        "sigmoid": clip | {"init_logit_bias": -10, "custom_text": True},
        "simple": clip | {"text_cfg": NATIVE_TEXT | {"vocab_size": 49408, "width": 16, "hf_tokenizer_name": None}},
        "siglip": {
            **{"embed_dim": 32, "init_logit_bias": -10, "custom_text": True},
            **{"vision_cfg": siglip_vision | {"image_size": 28}, "text_cfg": siglip_text | {"width": 32}},
        },
        "bias": {
            **{"embed_dim": 32, "init_logit_bias": -10, "custom_text": True},
            "vision_cfg": NATIVE_VISION,
            "text_cfg": siglip_text | {"act_kwargs": {"approximate": "tanh"}},
        },
        "siglip_clip": {
            **{"embed_dim": 32, "custom_text": True, "text_cfg": clip["text_cfg"]},
            "vision_cfg": siglip_vision | {"image_size": 28},
        },
        "biomed": {"embed_dim": 16, "vision_cfg": timm, "text_cfg": hf},
        "roberta": {
            **{"embed_dim": 16, "quick_gelu": True, "vision_cfg": NATIVE_VISION},
            "text_cfg": hf | {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"},
        },
        "bert_pooler": {"embed_dim": 16, "vision_cfg": timm, "text_cfg": hf | {"hf_pooler_type": "cls_pooler"}},
    }[family]


def save_bert(folder: Path, family: str) -> Path:
    """The folder whose config ``hf_model_name`` names; the weights are those of the checkpoint."""
    size = SIZES | {"vocab_size": 256, "max_position_embeddings": 40, "pad_token_id": 0}
    kind = RobertaConfig if family == "roberta" else BertConfig
    kind(**size, **dict.fromkeys(("bos_token_id", "eos_token_id"))).save_pretrained(folder)
    return folder


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """A tokenizer of the words of the class prompts: CLIP's kind, SigLIP's or BERT's."""
    siglip = family in ("siglip", "bias")
    words = dict.fromkeys([*re.findall(r"\w+", " ".join(CAPTIONS).lower()), *words_of_prompts()])
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", *words][:254])}
    ends = {"<bos>": 254, "<eos>": 255}  # CLIP pools at the highest number
    backend = Tokenizer(models.WordLevel(vocabulary | ends, unk_token="<unk>"))  # noqa: S106 - no password
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if not siglip:
        backend.normalizer = normalizers.Lowercase()
    backend.post_processor = processors.TemplateProcessing(
        single="$A <eos>" if siglip else "<bos> $A <eos>", special_tokens=list(ends.items())
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def copy_fixture(family: str, folder: Path) -> dict[str, torch.Tensor]:
    """Put a stored checkpoint into a folder and return what open_clip made of images and captions."""
    shutil.copytree(FIXTURES / family, folder, ignore=shutil.ignore_patterns("expected.json"))
    path = folder / "open_clip_config.json"
    values = json.loads(path.read_text())
    if "hf_model_name" in values["model_cfg"]["text_cfg"]:
        bert = save_bert(folder.parent / f"{folder.name}_bert", family)
        values["model_cfg"]["text_cfg"]["hf_model_name"] = str(bert)
        path.write_text(json.dumps(values))
    expected = json.loads((FIXTURES / family / "expected.json").read_text())
    return {name: torch.tensor(value) for name, value in expected.items()}
