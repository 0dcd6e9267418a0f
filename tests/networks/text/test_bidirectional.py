"""Text towers that read in both directions, against transformers' own forward pass."""

import logging

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from cleft_bundle.data import CaptionTokenizer
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import Lora, PromptLearner, TextEncoder, load_tokenizer
from tests.conftest import TINY_GPT2
from tests.networks.text.berts import BERTS, SIZES, write_bert

CAPTIONS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [5, 6, 7], [17], [18, 19, 20, 21]]
METHODS = ["none", "full", "lora", "ia3", "prefix", "adalora"]
#: peft knows no layers for IA3 in these.
NO_IA3 = {"distilbert", "electra", "modernbert", "mpnet", "albert", "xlm-roberta"}


def batch(captions=CAPTIONS, width=None):
    width = width or max(map(len, captions)) + 1
    ids = torch.tensor([caption + [0] * (width - len(caption)) for caption in captions])
    length = torch.tensor([len(caption) for caption in captions])
    return {"input_ids": ids, "attention_mask": (torch.arange(width) < length[:, None]).long()}


@pytest.fixture
def bert(tmp_path):
    return write_bert(tmp_path / "bert")


@pytest.mark.parametrize("kind", BERTS)
@pytest.mark.parametrize("pooling", ["auto", "cls", "mean"])
def test_embeddings_are_those_of_the_models_own_forward_pass(kind, pooling, tmp_path):
    encoder = TextEncoder(BERTS[kind], embedding_dim=8, peft="none", pooling=pooling).eval()
    encoder.backbone.save_pretrained(tmp_path / kind)
    model = AutoModel.from_pretrained(tmp_path / kind).eval()
    embedding = encoder(**batch())
    for row, caption in enumerate(CAPTIONS):  # each alone and without padding
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([caption])).last_hidden_state[0]
        feature = hidden[0] if pooling == "cls" else hidden.mean(dim=0)
        expected = F.normalize(encoder.projection(feature), dim=0)
        torch.testing.assert_close(embedding[row], expected, atol=1e-6, rtol=0)
    assert not encoder.causal
    assert encoder.row_tokens is None
    assert encoder.pooling == ("cls" if pooling == "cls" else "mean")


@pytest.mark.parametrize("kind", BERTS)
def test_neither_padding_nor_neighbours_count(kind):
    encoder = TextEncoder(BERTS[kind], embedding_dim=8, peft="none").eval()
    alone = torch.cat([encoder(**batch([caption])) for caption in CAPTIONS])
    for width in (12, 20):
        torch.testing.assert_close(encoder(**batch(width=width)), alone, atol=1e-6, rtol=0)
    filled = torch.where(batch()["attention_mask"] == 1, batch()["input_ids"], 33)
    torch.testing.assert_close(encoder(filled, batch()["attention_mask"]), alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", BERTS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_train_what_they_add_or_are_refused_by_name(kind, method):
    if method == "prefix" or (method == "ia3" and kind in NO_IA3):
        with pytest.raises(BundleError, match=f"{method}: .*({kind}|target_modules)") as caught:
            TextEncoder(BERTS[kind], embedding_dim=8, peft=method)
        assert "\n" not in str(caught.value)
        return
    encoder = TextEncoder(BERTS[kind], embedding_dim=8, peft=method)
    draw = torch.Generator().manual_seed(0)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name or "lora_E" in name:  # zero, which makes other gradients vanish
            torch.nn.init.normal_(parameter, generator=draw)
    (encoder(**batch()) @ torch.randn(8, generator=draw)).pow(2).sum().backward()
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    assert len(trained) > 2 or method == "none"
    lacking = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    # a softmax does not see what all keys have in common
    assert [name for name in lacking if not name.endswith(("key.bias", "k.bias", "k_lin.bias"))] == []


@pytest.mark.parametrize(
    ("backbone", "pooling", "message"),
    [
        (BERTS["bert"], "end", "text_pooling: bert from a config reads in both directions: expected cls, mean or auto"),
        (TINY_GPT2, "mean", "text_pooling: in gpt2 from a config tokens see only those before them: expected end or"),
        (TINY_GPT2, "cls", "text_pooling: in gpt2 from a config"),
        (TINY_GPT2, "max", "text_pooling: expected one of auto, end, cls, mean, got 'max'"),
    ],
)
def test_a_pooling_that_does_not_go_with_the_model_is_one_line(backbone, pooling, message):
    with pytest.raises(BundleError, match=message) as caught:
        TextEncoder(backbone, pooling=pooling)
    assert "\n" not in str(caught.value)


def test_a_bert_made_a_decoder_is_causal_and_its_positions_begin_where_its_own_do(caplog):
    encoder = TextEncoder(BERTS["roberta"] | {"is_decoder": True}, embedding_dim=8, peft="none").eval()
    assert encoder.causal
    assert encoder.pooling == "end"
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        own = encoder.backbone(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 0]])).last_hidden_state
    torch.testing.assert_close(encoder.features(ids, torch.tensor([[1, 1, 1, 0]])), own[:, 3], atol=1e-5, rtol=0)
    alone = TextEncoder(BERTS["roberta"] | {"is_decoder": True}, embedding_dim=8, peft="none", row_tokens=None).eval()
    torch.testing.assert_close(encoder(**batch()), alone(**batch()), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "most"), [("bert", 32), ("roberta", 30), ("distilbert", 32), ("modernbert", 32)])
def test_captions_as_long_as_the_model_takes_pass_and_longer_ones_are_refused(kind, most):
    encoder = TextEncoder(BERTS[kind], embedding_dim=8, peft="none").eval()
    assert encoder.max_positions == most
    ids = torch.arange(most)[None] % 50 + 5
    assert encoder(ids, torch.ones_like(ids)).isfinite().all()
    longer = torch.cat([ids, ids[:, :1]], dim=1)
    with pytest.raises(BundleError, match=f"captions of {most + 1} tokens.* window of {most}"):
        encoder(longer, torch.ones_like(longer))


def test_fewer_bits_and_recomputing_change_nothing_but_rounding():
    exact = TextEncoder(BERTS["bert"], embedding_dim=8, peft=Lora(r=2)).eval()
    for arguments in ({"dtype": "bfloat16"}, {"dtype": "float16"}, {"gradient_checkpointing": True}):
        other = TextEncoder(BERTS["bert"], embedding_dim=8, peft=Lora(r=2), **arguments).eval()
        assert not other.causal
        torch.testing.assert_close(other(**batch()), exact(**batch()), atol=0.05, rtol=0)


def test_a_layer_that_nothing_reads_is_not_built_and_the_log_stays_quiet(caplog):
    with caplog.at_level(logging.INFO, logger="cleft_bundle"):
        encoder = TextEncoder(BERTS["bert"], embedding_dim=8, peft="full")
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    assert not [record for record in caplog.records if record.name.startswith("cleft_bundle")]


def test_the_tokenizer_keeps_what_it_puts_around_a_text(bert):
    tokenizer = load_tokenizer(bert)
    tokenize = CaptionTokenizer(tokenizer, max_length=8)
    tokens = tokenize(["edema", "no finding of edema with pleural effusion"])
    rows = [ids[mask == 1].tolist() for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"], strict=True)]
    words = tokenizer.convert_tokens_to_ids
    assert rows[0] == words(["[CLS]", "edema", "[SEP]"])
    assert rows[1] == words(["[CLS]", "no", "finding", "of", "edema", "with", "[SEP]"])  # cut, and closed
    behind = CaptionTokenizer(tokenizer, max_length=8, after="this is a chest")(["edema"])
    assert behind["input_ids"][0][:2].tolist() == words(["edema", "[SEP]"])
    assert behind["attention_mask"].sum() == 2


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_context_that_is_still_its_words_reads_as_the_whole_caption(bert, pooling):
    encoder = TextEncoder(bert, embedding_dim=8, peft="none", pooling=pooling).eval()
    tokenizer, words = load_tokenizer(bert), "this is a chest x ray of a patient with"
    tokenize = CaptionTokenizer(tokenizer, max_length=64)
    names = ["edema", "pleural effusion"]
    learner = PromptLearner(encoder, tokenize, words=words, length=len(words.split()) + 1)  # CLS besides
    after = CaptionTokenizer(tokenizer, max_length=64, after=words)(names)
    whole = encoder(**tokenize([f"{words} {name}" for name in names]))
    torch.testing.assert_close(encoder(**after, context=learner()), whole, atol=1e-6, rtol=0)
    encoder(**after, context=learner()).sum().backward()
    assert (learner.context.grad.abs().sum(dim=1) > 0).all()
    each = PromptLearner(encoder, tokenize, words=words, length=11, context="per_class", classes=2)
    torch.testing.assert_close(encoder(**after, context=each()), whole, atol=1e-6, rtol=0)


def test_hidden_states_narrower_than_the_config_says():
    opt = {
        **{"model_type": "opt", "vocab_size": 64, "hidden_size": 16, "word_embed_proj_dim": 8, "ffn_dim": 32},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "dropout": 0.0},
        **{"do_layer_norm_before": False, "init_std": 0.3},
    }
    encoder = TextEncoder(opt, embedding_dim=4, peft=Lora(r=2)).eval()
    assert encoder.hidden_size == 8
    assert encoder.row_tokens
    padded = TextEncoder(opt, embedding_dim=4, peft=Lora(r=2), row_tokens=None).eval()
    torch.testing.assert_close(encoder(**batch()), padded(**batch()), atol=1e-5, rtol=0)
    words = PromptLearner(encoder, lambda texts: batch([[5, 6], []]), length=5)
    assert encoder(**batch(), context=words()).shape == (4, 4)


def test_a_model_that_wants_more_than_text_is_one_line():
    t5 = {"model_type": "t5", "vocab_size": 64, "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16, "d_kv": 8}
    with pytest.raises(BundleError, match="text_backbone: t5 from a config does not read text alone: ") as caught:
        TextEncoder(t5, peft="none")
    assert "\n" not in str(caught.value)


def test_a_model_without_values_is_taken_at_its_word():
    with torch.device("meta"):
        encoders = [TextEncoder(values, embedding_dim=8, peft="none") for values in (BERTS["bert"], TINY_GPT2)]
    assert [encoder.causal for encoder in encoders] == [False, True]
    assert [encoder.hidden_size for encoder in encoders] == [SIZES["hidden_size"], TINY_GPT2["n_embd"]]
