"""The recipes of CLEFT's paper: what the configs resolve to, beside a table of the paper's values."""

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from PIL import Image

from cleft_bundle.config import _known_ids
from cleft_bundle.settings import check_settings
from tests.conftest import ROOT

PAPER = "Du, Chang, Dvornek, CLEFT, MICCAI 2024"
RELEASE = "the authors' released code"
#: Value of each id, and who says so.
PRETRAINING = {
    "batch_size": (72, f"{PAPER}, implementation details: 4 GPUs x 72"),
    "max_steps": (40_000, f"{PAPER}, implementation details: 40,000 steps"),
    "warmup_steps": (4_000, f"{PAPER}, implementation details: linear warm-up of 4,000 steps"),
    "learning_rate": (4e-5, f"{PAPER}, implementation details: AdamW, 4e-5"),
    "backbone_learning_rate": (4e-5, f"{PAPER}, implementation details: one rate for all"),
    "layer_decay": (1.0, f"{PAPER}, implementation details: one rate for all"),
    "final_learning_rate": (1e-8, f"{RELEASE}: cosine to 1e-8"),
    "weight_decay": (0.1, f"{PAPER}, implementation details; none on vectors in {RELEASE}"),
    "optimizer#betas": ([0.9, 0.999], "not said: PyTorch's"),
    "optimizer#eps": (1e-8, "not said: PyTorch's"),
    "max_grad_norm": (None, "not said: none"),
    "autocast": ("bfloat16", f"{PAPER}, implementation details: bf16"),
    "text_dtype": ("bfloat16", f"{PAPER}, implementation details: bf16"),
    "text_checkpointing": (True, f"{RELEASE}: in the language model"),
    "image_backbone": ("facebook/dinov2-with-registers-base", f"{PAPER}, section 2: DINOv2 ViT-B/14"),
    "text_backbone": ("stanford-crfm/BioMedLM", f"{PAPER}, section 2: BioMedLM"),
    "image_peft": ("full", f"{PAPER}, section 2: the image tower is trained in full"),
    "peft#r": (8, f"{RELEASE}: LoRA of rank 8"),
    "peft#lora_alpha": (32, f"{RELEASE}: alpha 32"),
    "peft#lora_dropout": (0.1, f"{RELEASE}: dropout 0.1"),
    "peft#target_modules": (["c_attn"], f"{RELEASE}: on c_attn"),
    "unfreeze_text": ([], f"{PAPER}, section 2: all else of the language model is frozen"),
    "embedding_dim": (512, f"{PAPER}, section 2: 512"),
    "pooling": ("tokens_prenorm", f"{RELEASE}: pool_feat"),
    "text_pooling": ("end", f"{RELEASE}: the first EOS"),
    "network_def#temperature": (0.07, f"{PAPER}, section 2: ln(1/0.07)"),
    "network_def#max_logit_scale": (None, f"{RELEASE}: not clamped"),
    "positives": ("index", f"{PAPER}, section 2: an image and its caption"),
    "gather": (False, f"{RELEASE}: 72 candidates a GPU"),
    "image_size": (224, f"{PAPER}, implementation details: crops of 224 from 256 x 256"),
    "resized_to": (256, f"{PAPER}, implementation details: crops of 224 from 256 x 256"),
    "image_mean": (0.5, f"{RELEASE}: mean 0.5"),
    "image_std": (0.5, f"{RELEASE}: standard deviation 0.5"),
    "subset_seed": (42, f"{RELEASE}: seed 42 of the shares of labels"),
}
WINDOWS = {
    "recipe_cleft.json": (64, f"{RELEASE}: captions to 64 tokens"),
    "recipe_cleft_mammo.json": (144, f"{RELEASE}: natural and structural captions of EMBED to 144"),
}
PROMPTS = {
    "context_length": (30, f"{PAPER}, section on prompt fine-tuning: length 30"),
    "context_words": ("this is a chest x ray of a patient with", f"{PAPER}: initialised from these words"),
    "context": ("shared", f"{PAPER}: one context"),
    "objective": ("classification", f"{PAPER}: cross-entropy of the zero-shot classification"),
    "learning_rate": (1e-4, f"{PAPER}: SGD, 1e-4"),
    "final_learning_rate": (1e-5, f"{PAPER}: cosine to 1e-5"),
    "momentum": (0.0, "not said: none"),
    "weight_decay": (1e-3, f"{PAPER}: 1e-3"),
    "warmup_steps": (100, f"{PAPER}: warm-up of 100"),
    "max_steps": (8_000, f"{PAPER}: 8,000 steps"),
}
#: Id and argument of each transform of the training.
AUGMENTATION = {
    ("RandSpatialCropd", "roi_size"): [224, 224],
    ("RandAffined", "rotate_range"): pytest.approx(np.deg2rad(10), abs=1e-4),
    ("RandAffined", "translate_range"): [14, 14],  # a sixteenth
    ("RandZoomd", "min_zoom"): 0.8,
    ("RandZoomd", "max_zoom"): 1.1,
    ("RandScaleIntensityd", "factors"): 0.2,
    ("RandScaleIntensityd", "prob"): 0.4,
    ("RandScaleIntensityFixedMeand", "factors"): 0.2,
    ("RandScaleIntensityFixedMeand", "prob"): 0.4,
    ("RandGaussianSmoothd", "prob"): 0.4,
    ("RandGaussianSmoothd", "sigma_x"): [0.1, 2.0],
    ("RandGaussianSmoothd", "sigma_y"): [0.1, 2.0],
}


def parsed(*names):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in names])
    parser["bundle_root"] = str(ROOT)
    return parser


def assert_says(parser, table):
    found = {key: parser.get_parsed_content(key) for key in table}
    assert found == {key: value for key, (value, _) in table.items()}


@pytest.mark.parametrize("name", WINDOWS)
def test_the_recipe_of_pretraining_is_the_paper_s(name):
    parser = parsed("train.json", "net_cleft.json", name)
    assert_says(parser, PRETRAINING | {"max_caption_tokens": WINDOWS[name]})
    assert parser["train#trainer#max_steps"] == "@max_steps"
    values = {}
    for number, transform in enumerate(parser["random_transforms"]):
        for key in transform.keys() - {"_target_"}:
            place = f"random_transforms#{number}#{key}"
            values[transform["_target_"].rpartition(".")[2], key] = parser.get_parsed_content(place)
    assert {key: values[key] for key in AUGMENTATION} == AUGMENTATION


@pytest.mark.parametrize("name", WINDOWS)
def test_each_value_stands_in_the_recipe_itself(name):
    """But for those of the network, which net_cleft.json names."""
    own = ConfigParser.load_config_file(ROOT / "configs" / name)
    named = set(own) | {key for key in PRETRAINING if key.split("#")[0] == "peft"}
    assert PRETRAINING.keys() - named == {"image_backbone", "text_backbone"}
    check_settings({key: value for key, value in own.items() if not str(value).startswith(("$", "@"))})


def test_the_two_recipes_differ_in_what_mammograms_are():
    chest, mammograms = (ConfigParser.load_config_file(ROOT / "configs" / name) for name in WINDOWS)
    different = {key for key in chest.keys() | mammograms.keys() if chest.get(key) != mammograms.get(key)}
    assert different == {"_about", "max_caption_tokens", "deterministic_transforms", "random_transforms"}


def test_the_recipe_of_prompts_is_the_paper_s():
    names = "train.json", "net_cleft.json", "recipe_cleft.json", "prompt_tuning.json", "recipe_cleft_prompt.json"
    assert_says(parsed(*names), PROMPTS)


def test_a_recipe_adds_no_id_that_nothing_knows():
    known = _known_ids(ROOT / "configs")[""]
    for name in (*WINDOWS, "recipe_cleft_prompt.json"):
        assert {key.split("#")[0] for key in ConfigParser.load_config_file(ROOT / "configs" / name)} <= known


@pytest.mark.parametrize("name", WINDOWS)
def test_images_are_crops_of_224_pixels(name, tmp_path):
    path = tmp_path / "image.png"
    rows, columns = np.mgrid[:400, :300]
    pixels = 255 * np.exp(-(((rows - 200) / 150) ** 2) - (columns / 150) ** 2)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    parser = parsed("train.json", "net_cleft.json", name)
    for key in ("train#preprocessing#transforms", "validate#preprocessing#transforms"):
        transforms = [each for each in parser.get_parsed_content(key) if "Caption" not in type(each).__name__]
        image = Compose(transforms)({"image": str(path), "caption": "of the left breast"})["image"]
        assert tuple(image.shape) == (3, 224, 224)
        assert torch.isfinite(image).all()
