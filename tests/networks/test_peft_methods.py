import peft
import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import AdaLora, Dora, Frozen, Full, Ia3, Lora, Prefix, TextEncoder
from cleft_bundle.networks.backbones import freeze, load_backbone
from cleft_bundle.networks.peft_methods import resolve_peft
from tests.conftest import TINY_GPT2, TINY_VIT

SAME = {
    "lora": (Lora(r=2), peft.LoraConfig(r=2, lora_alpha=32, lora_dropout=0.1)),
    "dora": (Dora(r=2), peft.LoraConfig(r=2, lora_alpha=32, lora_dropout=0.1, use_dora=True)),
    "ia3": (Ia3(), peft.IA3Config()),
    "prefix": (Prefix(3), peft.PrefixTuningConfig(num_virtual_tokens=3)),
    "adalora": (
        AdaLora(init_r=3, target_r=2),
        peft.AdaLoraConfig(init_r=3, target_r=2, lora_alpha=32, lora_dropout=0.1, total_step=1000),
    ),
}
XGLM = {"model_type": "xglm", "d_model": 16, "num_layers": 1, "attention_heads": 2, "ffn_dim": 16, "vocab_size": 99}


def trained(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", SAME)
def test_a_config_of_peft_says_the_same_as_our_names_of_its_values(name, tokenize):
    ours, theirs = (TextEncoder(TINY_GPT2, peft=method).eval() for method in SAME[name])
    assert ours.peft.name == theirs.peft.name == str(theirs.peft) == name
    assert ours.peft.virtual_tokens == theirs.peft.virtual_tokens == (3 if name == "prefix" else 0)
    assert trained(ours) == trained(theirs)
    batch = tokenize(["edema", "pleural effusion"])
    torch.testing.assert_close(ours(**batch), theirs(**batch), atol=0, rtol=0)
    assert float(ours.penalty()) == float(theirs.penalty())
    assert (float(ours.penalty()) > 0) == (name == "adalora")


def test_the_penalty_is_the_mean_distance_of_the_gram_matrices_from_one():
    encoder = TextEncoder(TINY_GPT2, peft=AdaLora(init_r=3, target_r=2, orthogonality=0.25))
    model = encoder.backbone.base_model.model
    factors = [
        part["default"].detach().numpy()
        for block in model.h
        for part in (block.attn.c_attn.lora_A, block.attn.c_attn.lora_B)
    ]
    wide = [f if f.shape[0] < f.shape[1] else f.T for f in factors]
    expected = [(((f @ f.T) - torch.eye(3).numpy()) ** 2).sum() ** 0.5 for f in wide]
    assert float(encoder.penalty()) == pytest.approx(0.25 * sum(expected) / len(expected), rel=1e-5)


def test_a_config_stays_as_it_is_and_adapts_any_number_of_models():
    config = peft.LoraConfig(r=2)
    for backbone in (TINY_GPT2, TINY_VIT):
        model = load_backbone(backbone, "backbone")
        freeze(model)
        adapted = resolve_peft(config).apply(model)
        assert all("lora_" in name for name in trained(adapted))
    assert config.target_modules is None
    assert not config.fan_in_fan_out


@pytest.mark.parametrize(
    ("backbone", "config", "adapted"),
    [
        (TINY_GPT2, peft.LoraConfig(r=2, target_modules="all-linear"), {"c_attn", "c_proj", "c_fc"}),
        (TINY_GPT2, peft.LoraConfig(r=2, target_modules=r".*h\.1\.attn\.c_proj", fan_in_fan_out=True), {"c_proj"}),
        (TINY_VIT, peft.LoraConfig(r=2), {"q_proj", "v_proj"}),
        (TINY_VIT, peft.LoHaConfig(r=2, target_modules=["q_proj"]), {"q_proj"}),
        (TINY_VIT, AdaLora(init_r=3, target_r=2), {"q_proj", "v_proj"}),
        ({**TINY_VIT, "model_type": "vit"}, "lora", {"q_proj", "v_proj"}),
        (XGLM, "lora", {"q_proj", "v_proj"}),
    ],
    ids=["all-linear", "pattern", "dinov2", "loha", "adalora", "vit", "xglm"],
)
def test_layers_of_towers_of_any_kind_are_found(backbone, config, adapted):
    model = load_backbone(backbone, "backbone")
    freeze(model)
    names = trained(resolve_peft(config).apply(model))
    assert {part for name in names for part in name.split(".") if part.startswith(("q_", "k_", "v_", "c_"))} == adapted


def test_methods_that_add_no_layers():
    model = load_backbone(TINY_GPT2, "backbone")
    freeze(model)
    assert not trained(Frozen().apply(model))
    assert len(trained(Full().apply(model))) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("rola", "peft: expected one of lora, dora, ia3, prefix, adalora, none, full, got 'rola'"),
        (peft.PromptTuningConfig(num_virtual_tokens=2), "peft: PROMPT_TUNING learns a prompt"),
        (peft.LoraConfig(r=0), "lora: `r` should be a positive integer"),
        (peft.LoraConfig(lora_dropout=1.5), "lora: dropout probability has to be between 0 and 1"),
        (peft.LoraConfig(target_modules=["q_proj"]), "lora: target_modules q_proj match no layer; the linear layers"),
        (peft.LoraConfig(target_modules="nothing"), "lora: .*nothing"),
    ],
)
def test_wrong_use_is_refused_in_one_line(method, message):
    model = load_backbone(TINY_GPT2, "backbone")
    with pytest.raises(BundleError, match=message) as caught:
        resolve_peft(method).apply(model)
    assert "\n" not in str(caught.value)


def test_values_that_contradict_each_other_are_refused():
    with pytest.raises(BundleError, match="adalora: init_r is 1, expected at least target_r = 2"):
        AdaLora(init_r=1, target_r=2)
    with pytest.raises(BundleError, match="ia3: target_modules and feedforward_modules are given together"):
        Ia3(target_modules=["c_attn"])
    with pytest.raises(BundleError, match="prefix: num_virtual_tokens is 0, expected 1 or more"):
        Prefix(0)
