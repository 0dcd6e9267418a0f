"""Captions in shared rows against captions in rows of their own, for the causal language models of transformers."""

import logging

import pytest
import torch
from transformers import AutoConfig

from cleft_bundle.networks import Lora, TextEncoder

SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads", "num_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 2),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    **{"num_key_value_heads": 1, "head_dim": 8, "rotary_dim": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    "vocab_size": 64,
}
