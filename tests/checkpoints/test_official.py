import argparse
import json
import shlex

import peft
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel, GPT2Config, GPT2LMHeadModel, GPT2Model, LlamaConfig, LlamaModel

from cleft_bundle.checkpoints import load_trained
from cleft_bundle.checkpoints.official import (
    BIOMEDLM,
    _gpt2,
    _HyperParameters,
    import_official,
    is_biomedlm,
    save_language_model,
)
from cleft_bundle.commands.configs import read_config
from cleft_bundle.data import phantoms
from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ContrastiveLoss
from cleft_bundle.networks import CLEFT, ImageEncoder, PromptLearner, TextEncoder
from tests import processes

WIDTH, HEADS, DIM, LLM_WIDTH, RANK = 64, 2, 8, 24, 3
VIT = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "patch_size": 14, "image_size": 42, "num_hidden_layers": 2}
HYPER = {
    "pool_feat": False,
    "tiny_vit": {"num_heads": HEADS},
    "tiny_gpt2": {"n_head": 3},
    "lora": {"alpha": 12, "dropout": 0.05},
}
LEVELS = "text_encoder_q.model.base_model.model."
IDS = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module):
    for tensor in module.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.copy_(0.2 * torch.randn_like(tensor))
    return module.eval()


def dino_keys(model):
    """The state of a Hugging Face model under DINOv2's own names, its attention fused."""
    ours = {
        **{"embeddings.position_embeddings": "pos_embed", "embeddings.patch_embeddings.projection": "patch_embed.proj"},
        **{"embeddings.": "", "encoder.layer.": "blocks.", "layernorm.": "norm.", "attention.o_proj": "attn.proj"},
        **{"layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma", "attention.q_proj": "attn.qkv"},
        **{"mlp.gate_proj": "mlp.w12", "mlp.down_proj": "mlp.w3"},
    }
    state, fused = model.state_dict(), {}
    for name, tensor in state.items():
        if any(part in name for part in ("k_proj", "v_proj", "up_proj")):
            continue
        key, rows = name, [tensor]
        if "q_proj" in name:
            rows += [state[name.replace("q_proj", other)] for other in ("k_proj", "v_proj")]
        if "gate_proj" in name:
            rows += [state[name.replace("gate_proj", "up_proj")]]
        for theirs, own in ours.items():
            key = key.replace(theirs, own)
        fused[f"img_encoder_q.model.{key}"] = torch.cat(rows) if len(rows) > 1 else tensor
    return fused


def linear_keys(side, width):
    prefix = f"{side}_encoder_q.global_embed."
    return {f"{prefix}weight": torch.randn(DIM, width), f"{prefix}bias": torch.randn(DIM)}


def make_vit(kind="dinov2_with_registers", **values):
    registers = {"num_register_tokens": 3} if kind.endswith("registers") else {}
    return randomised(AutoModel.from_config(AutoConfig.for_model(kind, **VIT | registers | values)))


def make_gpt2(kind=GPT2Model, r=RANK, layers=2, **values):
    sizes = {"vocab_size": 50, "n_positions": 32, "n_embd": LLM_WIDTH, "n_layer": layers, "n_head": 3}
    config = GPT2Config(**sizes | values, bos_token_id=None, eos_token_id=None)
    lora = peft.LoraConfig(r=r, lora_alpha=12, target_modules=["c_attn"], fan_in_fan_out=True)
    return randomised(peft.get_peft_model(kind(config), lora))


def prefixed(prefix, module):
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


@pytest.fixture
def vit():
    return make_vit()


@pytest.fixture
def gpt2():
    return make_gpt2()


@pytest.fixture
def state(vit, gpt2):
    """A complete state dict in the authors' format."""
    return {
        **dino_keys(vit),
        **linear_keys("img", WIDTH),
        **prefixed("text_encoder_q.model.", gpt2),
        **linear_keys("text", LLM_WIDTH),
        "logit_scale": torch.tensor(2.5),
    }


@pytest.fixture
def write(tmp_path):
    def write(state, hyper=HYPER):
        path = tmp_path / "official.ckpt"
        torch.save({"state_dict": state, "hyper_parameters": hyper, "epoch": 3}, path)
        return path

    return write


@torch.no_grad()
def text_reference(state, gpt2, mask=MASK, ids=IDS):
    """Text embeddings by a plain GPT-2 whose weights have the low-rank updates added by hand."""
    base = gpt2.get_base_model()
    plain = GPT2Model(base.config).eval()
    merged = {}
    for name, tensor in base.state_dict().items():
        if ".lora_" in name or "lm_head" in name:
            continue
        name = name.removeprefix("transformer.")  # noqa: PLW2901
        merged[name.replace(".base_layer.", ".")] = tensor.clone()
    for name in merged:
        factors = [
            tensor
            for key, tensor in base.state_dict().items()
            if ".lora_" in key and key.removeprefix("transformer.").split(".lora_")[0] + ".weight" == name
        ]
        if factors:
            merged[name] += (factors[1] @ factors[0]).T * 12 / len(factors[0])
    plain.load_state_dict(merged)
    hidden = plain(input_ids=ids, attention_mask=mask).last_hidden_state[torch.arange(len(ids)), mask.sum(dim=1)]
    weight, bias = (state[f"text_encoder_q.global_embed.{name}"] for name in ("weight", "bias"))
    return F.normalize(hidden @ weight.T + bias, dim=1)


@torch.no_grad()
def image_reference(state, vit, image):
    """Image embeddings by the class token of the Hugging Face model and a linear projection."""
    weight, bias = (state[f"img_encoder_q.global_embed.{name}"] for name in ("weight", "bias"))
    return F.normalize(vit(image).last_hidden_state[:, 0] @ weight.T + bias, dim=1)


@torch.no_grad()
def embed(network, image):
    return network.encode_image(image), network.encode_text(IDS, MASK)


@pytest.mark.shared_data
@pytest.mark.parametrize("pooling", ["pool", "cls"])
def test_the_fixture_gives_the_outputs_of_the_authors_code(shared_data, tmp_path, pooling):
    fixture = torch.load(shared_data / "fixtures" / "official_tiny.pt", weights_only=True)
    checkpoint, inputs, expected = fixture["checkpoint"], fixture["inputs"], fixture["expected"]
    checkpoint["hyper_parameters"]["pool_feat"] = pooling == "pool"
    torch.save(checkpoint, tmp_path / "official.ckpt")
    imported = import_official(tmp_path / "official.ckpt")
    with torch.no_grad():
        found = imported.network(inputs["images"], inputs["input_ids"], inputs["attention_mask"])
        loss = ContrastiveLoss("index")(found, torch.arange(4))
    image, text, scale, _ = found
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(image, expected[f"image_embeds_{pooling}"], **close)
    torch.testing.assert_close(text, expected["text_embeds"], **close)
    torch.testing.assert_close(scale * image @ text.T, expected[f"logits_{pooling}"], **close)
    torch.testing.assert_close(loss, expected[f"loss_{pooling}"], **close)
    assert [entry.key for entry in imported.report] == list(checkpoint["state_dict"])
    assert {entry.status for entry in imported.report} == {"mapped"}
    assert imported.assumed == []


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("dinov2_with_registers", {"num_hidden_layers": 3}),
        ("dinov2", {"image_size": 56}),
        ("dinov2", {"use_swiglu_ffn": True}),
    ],
)
@pytest.mark.parametrize(("r", "layers"), [(3, 1), (5, 3)])
def test_architecture_follows_from_the_shapes(kind, values, r, layers, state, write):
    vit, gpt2 = make_vit(kind, **values), make_gpt2(r=r, layers=layers)
    state = {key: t for key, t in state.items() if ".model." not in key}
    state |= dino_keys(vit) | prefixed("text_encoder_q.model.", gpt2)
    network = import_official(write(state)).network
    image = torch.randn(2, 3, 42, 42)
    images, texts = embed(network, image)
    torch.testing.assert_close(images, image_reference(state, vit, image))
    torch.testing.assert_close(texts, text_reference(state, gpt2))
    assert network.scale.item() == pytest.approx(float(torch.tensor(2.5).exp()))


def test_the_scale_is_not_clamped_as_in_the_release(state, write):
    network = import_official(write(state | {"logit_scale": torch.tensor(6.0)})).network
    assert network.scale.item() == pytest.approx(403.43, abs=0.01)


@pytest.mark.parametrize("wrap", [lambda hyper: argparse.Namespace(**hyper), dict])
def test_hyper_parameters_may_be_namespaces(wrap, state, write):
    settings = import_official(write(state, wrap(HYPER | {"tiny_vit": argparse.Namespace(num_heads=HEADS)}))).settings
    assert settings["pooling"] == "cls"
    assert settings["image_backbone"]["num_attention_heads"] == HEADS
    assert (settings["peft"]["lora_alpha"], settings["peft"]["lora_dropout"]) == (12, 0.05)


def test_what_the_file_does_not_say_is_assumed_openly(state, write):
    imported = import_official(write(state, {"tiny_gpt2": {"n_head": 3}}))
    assert imported.assumed == ["alpha = 32", "dropout = 0.1", "num_heads = 1", "pool_feat = True"]
    assert imported.settings["pooling"] == "tokens_prenorm"


def test_an_unknown_number_of_heads_is_refused(state, write):
    with pytest.raises(BundleError, match=r"official\.ckpt: hyper_parameters do not say how many heads .* 24 wide"):
        import_official(write(state, {}))


def test_a_language_model_with_head_and_masks(state, write):
    gpt2 = make_gpt2(GPT2LMHeadModel)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(LEVELS)}
    state |= prefixed("text_encoder_q.model.", gpt2)
    extra = {
        f"{LEVELS}transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32, dtype=torch.bool),
        f"{LEVELS}transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
        "img_encoder_q.local_embed.conv.weight": torch.ones(4, 4),
        "text_encoder_q.local_embed.head.0.weight": torch.ones(4, 4),
    }
    imported = import_official(write(state | extra))
    ignored = {entry.key: entry.detail for entry in imported.report if entry.status == "ignored"}
    assert set(ignored) == {f"{LEVELS}lm_head.weight", *extra}
    assert ignored["img_encoder_q.local_embed.conv.weight"] == "projection of local features, which CLEFT never uses"
    assert all(ignored.values())
    torch.testing.assert_close(embed(imported.network, torch.zeros(2, 3, 42, 42))[1], text_reference(state, gpt2))


def mlp_keys(tower, features, hidden):
    mlp = randomised(
        torch.nn.Sequential(
            torch.nn.Linear(features, hidden),
            torch.nn.BatchNorm1d(hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(hidden, DIM),
            torch.nn.BatchNorm1d(DIM, affine=False),
        )
    )
    for index in (1, 4):
        mlp[index].running_var.abs_().add_(0.1)
    return mlp, prefixed(f"{tower}.global_embed.head.", mlp)


def with_head(state, head):
    towers = {key.split(".")[0] for key in head}
    kept = {k: t for k, t in state.items() if not any(k.startswith(f"{tower}.global_embed") for tower in towers)}
    return kept | head


@pytest.mark.parametrize("hidden", [2048, 20])
def test_a_head_of_two_layers(state, vit, write, hidden):
    mlp, keys = mlp_keys("img_encoder_q", WIDTH, hidden)
    imported = import_official(write(with_head(state, keys)))
    image = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        expected = F.normalize(mlp(vit(image).last_hidden_state[:, 0]), dim=1)
    torch.testing.assert_close(embed(imported.network, image)[0], expected)
    assert imported.settings["network_def#image_encoder#projection"] == hidden


def test_a_text_head_of_two_layers(state, gpt2, write):
    mlp, keys = mlp_keys("text_encoder_q", LLM_WIDTH, 20)
    imported = import_official(write(with_head(state, keys)))
    with torch.no_grad():
        hidden = gpt2(input_ids=IDS, attention_mask=MASK).last_hidden_state[[0, 1], MASK.sum(dim=1)]
        expected = F.normalize(mlp(hidden), dim=1)
    torch.testing.assert_close(embed(imported.network, torch.randn(2, 3, 42, 42))[1], expected)
    assert imported.settings["embedding_dim"] == DIM


def prompt_tuned(state, prompt):
    deeper = {key.replace(LEVELS, "text_encoder_q.model.base_model.base_model.model."): t for key, t in state.items()}
    deeper["text_encoder_q.model.prompt_encoder.default.embedding.weight"] = prompt
    deeper["text_encoder_q.model.word_embeddings.weight"] = state[f"{LEVELS}wte.weight"]
    return deeper


def test_a_learnt_prompt_stands_before_the_caption(state, gpt2, write):
    prompt = torch.randn(4, LLM_WIDTH)
    imported = import_official(write(prompt_tuned(state, prompt)))
    assert imported.settings["context_length"] == 4
    with torch.no_grad():
        inputs = torch.cat([prompt.expand(2, -1, -1), gpt2.get_base_model().wte(IDS)], dim=1)
        mask = torch.cat([torch.ones(2, 4, dtype=torch.long), MASK], dim=1)
        hidden = gpt2(inputs_embeds=inputs, attention_mask=mask).last_hidden_state[[0, 1], mask.sum(dim=1)]
        weight, bias = (state[f"text_encoder_q.global_embed.{name}"] for name in ("weight", "bias"))
        expected = F.normalize(hidden @ weight.T + bias, dim=1)
    torch.testing.assert_close(embed(imported.network, torch.zeros(2, 3, 42, 42))[1], expected)


def test_prefix_tuning_is_refused(state, write):
    with pytest.raises(BundleError, match="prefix tuning is not supported"):
        import_official(write(prompt_tuned(state, torch.randn(4, 7 * LLM_WIDTH))))


def test_the_llama_family(state, write):
    config = LlamaConfig(
        **{"vocab_size": 50, "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 32, "rms_norm_eps": 1e-5},
    )
    lora = peft.LoraConfig(r=2, lora_alpha=12, target_modules=["q_proj", "v_proj"])
    llama = randomised(peft.get_peft_model(LlamaModel(config), lora))
    state = {key: tensor for key, tensor in state.items() if not key.startswith("text_encoder_q")}
    state |= prefixed("text_encoder_q.model.", llama) | linear_keys("text", 256)
    imported = import_official(write(state))
    with torch.no_grad():
        hidden = llama(input_ids=IDS, attention_mask=MASK).last_hidden_state[[0, 1], MASK.sum(dim=1)]
        weight, bias = (state[f"text_encoder_q.global_embed.{name}"] for name in ("weight", "bias"))
        expected = F.normalize(hidden @ weight.T + bias, dim=1)
    torch.testing.assert_close(embed(imported.network, torch.zeros(2, 3, 42, 42))[1], expected, rtol=1e-4, atol=1e-5)


def test_every_leftover_key_is_named(state, write):
    extra = {
        "img_encoder_q.model.blocks.0.unknown": torch.ones(1),
        "text_encoder_q.global_embed.tail.weight": torch.ones(1),
        f"{LEVELS}h.0.attn.c_attn.ia3_l.default": torch.ones(1),
    }
    for keys in (list(extra)[:2], list(extra)[2:]):
        with pytest.raises(BundleError, match=rf"official\.ckpt: {len(keys)} keys belong to nothing") as caught:
            import_official(write(state | {key: extra[key] for key in keys}))
        assert all(key in str(caught.value) for key in keys)


def test_two_keys_for_one_parameter_are_refused(state, write):
    again = "text_encoder_q.model.base_model.base_model.model.wte.weight"
    with pytest.raises(BundleError, match=f"1 keys belong to nothing.*{again}"):
        import_official(write(state | {again: torch.ones(1)}))


@pytest.mark.parametrize(
    "key",
    [
        "img_encoder_q.model.blocks.1.ls2.gamma",
        f"{LEVELS}h.1.ln_1.bias",
        "logit_scale",
        "img_encoder_q.model.norm.bias",
    ],
)
def test_a_parameter_that_receives_nothing_is_refused(key, state, write):
    del state[key]
    with pytest.raises(BundleError, match=r"1 parameters of the network receive nothing"):
        import_official(write(state))


def test_another_shape_is_refused(state, write):
    state["img_encoder_q.model.norm.bias"] = torch.ones(3)
    with pytest.raises(BundleError, match=r"norm\.bias gives .*layernorm\.bias the shape \(3,\), expected \(64,\)"):
        import_official(write(state))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "cannot be read"),
        (b"not a checkpoint", "cannot be read"),
        ({"weights": 1}, "no Lightning checkpoint"),
        ({"state_dict": {}, "hyper_parameters": {"loss": torch.nn.MSELoss()}}, "cannot be read"),
        ({"state_dict": {}}, "neither of the GPT-2 nor of the Llama family"),
    ],
)
def test_a_file_of_another_kind_is_one_line_that_names_it(content, message, tmp_path):
    path = tmp_path / "official.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(BundleError, match=rf"official\.ckpt: .*{message}") as caught:
        import_official(path)
    assert "\n" not in str(caught.value)


def test_the_language_model_keeps_its_precision(state, write, tmp_path):
    for key in state:
        if key.startswith(LEVELS) and "lora" not in key:
            state[key] = state[key].bfloat16()
    imported = import_official(write(state))
    save_language_model(imported.network, tmp_path / "llm")
    assert imported.network.text_encoder.dtype == torch.bfloat16
    assert AutoModel.from_pretrained(tmp_path / "llm", dtype="auto").dtype == torch.bfloat16
    assert imported.settings["network_def#text_encoder#dtype"] == "bfloat16"


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    return phantoms.chest(str(tmp_path_factory.mktemp("chests")), patients=20, seed=0)


def run_command(*arguments):
    return processes.run(["-m", "cleft_bundle", "import", *map(str, arguments)], timeout=300)


def from_overlay(values):
    """The network that configs/train.json builds with the overlay, by the same arguments."""
    peft_values = {key: value for key, value in values["peft"].items() if key != "_target_"}
    width = values["embedding_dim"]
    image = ImageEncoder(values["image_backbone"], width, values["pooling"])
    text = TextEncoder(
        values["text_backbone"],
        width,
        peft.LoraConfig(**peft_values),
        values["unfreeze_text"],
        dtype=values["network_def#text_encoder#dtype"],
    )
    return CLEFT(image, text, max_logit_scale=values["network_def#max_logit_scale"])


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_the_command_writes_what_builds_the_network_again(tuned, state, write, tmp_path, tokenize):
    path = write(prompt_tuned(state, torch.randn(4, LLM_WIDTH)) if tuned else state)
    out = tmp_path / "models" / "cleft.pt"
    result = run_command(path, "--out", out)
    assert result.returncode == 0, result.stderr
    assert f"{len(state)} keys mapped" in result.stdout or tuned
    assert "img_encoder_q.model.blocks.N.attn.qkv.weight ->" in result.stdout
    values = json.loads((tmp_path / "models" / "cleft_net.json").read_text())
    assert values["text_backbone"] == str(tmp_path / "models" / "cleft_text_backbone")
    network = from_overlay(values)
    if tuned:
        words = {"input_ids": torch.tensor([[1], [0]]), "attention_mask": torch.tensor([[1], [0]])}
        network.learn_prompt(PromptLearner(network.text_encoder, lambda _: words, length=values["context_length"]))
    loaded = load_trained(network, out).eval()
    image = torch.randn(2, 3, 42, 42)
    for a, b in zip(embed(loaded, image), embed(import_official(path).network, image), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_the_overlay_goes_onto_the_training_config(root, state, write, tmp_path):
    folder = tmp_path / "language_model"
    arguments = [write(state), "--out", tmp_path / "a.pt", "--text_backbone", folder, "--verbose"]
    result = run_command(*arguments)
    assert result.returncode == 0, result.stderr
    assert "img_encoder_q.model.blocks.1.attn.qkv.weight ->" in result.stdout
    parser = read_config([str(root / "configs" / "train.json"), str(tmp_path / "a_net.json")])
    network = load_trained(parser.get_parsed_content("network_def"), tmp_path / "a.pt").eval()
    image = torch.randn(2, 3, 42, 42)
    for a, b in zip(embed(network, image), embed(import_official(arguments[0]).network, image), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_the_command_that_is_printed_evaluates_the_checkpoint(tuned, root, state, write, chests, tmp_path):
    """With the tokenizer of the embedded default and a language model of its vocabulary."""
    state |= prefixed("text_encoder_q.model.", make_gpt2(vocab_size=768, n_positions=64))
    out = tmp_path / "models" / "cleft.pt"
    done = run_command(write(prompt_tuned(state, torch.randn(30, LLM_WIDTH)) if tuned else state), "--out", out)
    line = done.stdout.splitlines()[-1].removeprefix("evaluate it: ")
    values = {"dataset_dir": chests, "tracking_uri": "", "output_dir": tmp_path / "eval", "models_dir": tmp_path}
    values |= {"tokenizer_source": root / "configs" / "tokenizer_tiny", "image_size": 56, "num_workers": 0}
    options = [part for key, value in values.items() for part in (f"--{key}", str(value))]
    done = processes.run([*shlex.split(line)[1:], *options], cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "zero shot auroc" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_ends_with_one_line_and_a_status(tmp_path):
    result = run_command(tmp_path / "absent.ckpt")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/absent.ckpt: this file does not exist")
    assert "Traceback" not in result.stderr


def test_a_small_model_is_not_taken_for_biomedlm(state, write):
    imported = import_official(write(state))
    assert not is_biomedlm(imported.network)
    assert imported.settings["tokenizer_source"] != BIOMEDLM


def test_biomedlm_is_known_by_its_shapes():
    shapes = {"wte.weight": (28896, 2560), "wpe.weight": (1024, 2560), "h.0.mlp.c_fc.weight": (2560, 10240)}
    shapes |= {f"h.{layer}.ln_1.bias": (2560,) for layer in range(32)}
    tensors = {f"text_encoder.language_model.{name}": torch.empty(*s, device="meta") for name, s in shapes.items()}
    config = _gpt2(tensors, _HyperParameters({}))
    assert (config["n_layer"], config["n_head"], config["n_positions"]) == (32, 20, 1024)
    assert config["scale_attn_by_inverse_layer_idx"]  # its published config says so, and no tensor does
