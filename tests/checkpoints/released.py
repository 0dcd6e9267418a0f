"""Checkpoints in the format of the authors' release, tiny and of random weights."""

import peft
import torch
from transformers import AutoConfig, AutoModel, GPT2Config, GPT2Model

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


def make_state(vit, gpt2):
    """A complete state dict in the authors' format."""
    return {
        **dino_keys(vit),
        **linear_keys("img", WIDTH),
        **prefixed("text_encoder_q.model.", gpt2),
        **linear_keys("text", LLM_WIDTH),
        "logit_scale": torch.tensor(2.5),
    }


def writer(folder):
    """What writes such a state dict as a checkpoint and gives its path."""

    def write(state, hyper=HYPER):
        path = folder / "official.ckpt"
        torch.save({"state_dict": state, "hyper_parameters": hyper, "epoch": 3}, path)
        return path

    return write


def prompt_tuned(state, prompt):
    deeper = {key.replace(LEVELS, "text_encoder_q.model.base_model.base_model.model."): t for key, t in state.items()}
    deeper["text_encoder_q.model.prompt_encoder.default.embedding.weight"] = prompt
    deeper["text_encoder_q.model.word_embeddings.weight"] = state[f"{LEVELS}wte.weight"]
    return deeper


@torch.no_grad()
def embed(network, image):
    return network.encode_image(image), network.encode_text(IDS, MASK)
