import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import PromptLearner, TextEncoder
from tests.conftest import TINY_GPT2


@pytest.fixture
def encoder():
    return TextEncoder(TINY_GPT2, embedding_dim=8)


def test_the_context_starts_as_its_words_repeated(encoder, tokenize):
    words = tokenize(["x ray of"])
    token = words["input_ids"][0, : int(words["attention_mask"].sum())]
    context = PromptLearner(encoder, tokenize, words="x ray of", length=2 * len(token) + 1)()
    expected = encoder.embed_tokens(torch.cat([token, token, token[:1]]))
    assert torch.equal(context, expected)
    assert context.requires_grad


def test_a_context_a_class_starts_equal_for_all(encoder, tokenize):
    context = PromptLearner(encoder, tokenize, length=5, context="per_class", classes=3)()
    assert context.shape == (3, 5, 16)
    assert torch.equal(context[0], context[2])


def test_words_that_do_not_fit_are_told(encoder, tokenize, caplog):
    PromptLearner(encoder, tokenize, words="x ray of a patient", length=2)
    assert "tokens are cut, as context_length is 2" in caplog.text
    caplog.clear()
    PromptLearner(encoder, tokenize, words="x ray of a patient", length=40)
    assert not caplog.records


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 63}, "prompt length: expected 1 to 62.* window of 64, got 63"),
        ({"length": 0}, "prompt length: expected 1 to 62"),
        ({"words": ""}, "prompt words: expected at least one word"),
        ({"context": "each"}, "context: expected one of shared, per_class"),
    ],
)
def test_wrong_use_is_refused(arguments, message, encoder, tokenize):
    with pytest.raises(BundleError, match=message):
        PromptLearner(encoder, tokenize, **arguments)
