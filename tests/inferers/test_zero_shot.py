import pytest
import torch
from ignite.engine import Engine

from cleft_bundle.errors import BundleError
from cleft_bundle.inferers import ClassPromptInferer, ZeroShotInferer
from cleft_bundle.networks import PromptLearner, class_weights

PROMPTS = {"edema": ["edema"], "no finding": ["no finding"]}


def test_scores_follow_the_weights_that_the_network_has_when_an_evaluation_starts(make_network, images, tokenize):
    network = make_network().eval()
    inferer = ZeroShotInferer(PROMPTS, tokenize, "multiclass")
    text = tokenize(["edema"] * 4)
    seen = []
    engine = Engine(lambda engine, batch: seen.append(inferer(images, engine.network, **text)["logits"]))
    engine.network = network
    inferer.attach(engine)
    with torch.no_grad():
        engine.run([0, 0])
        network.text_encoder.projection.weight.mul_(torch.linspace(-1, 1, 8)[:, None])
        engine.run([0])
        weights = class_weights(network, PROMPTS, tokenize, "multiclass")
        expected = network.scale * network.encode_image(images) @ weights.T
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[1], seen[2])
    torch.testing.assert_close(seen[2], expected)


def test_prompts_are_embedded_once_an_evaluation_not_once_a_batch(make_network, images, tokenize):
    calls = []

    def counting(captions):
        calls.append(len(captions))
        return tokenize(captions)

    inferer = ZeroShotInferer(PROMPTS, counting, "multiclass")
    calls.clear()  # the check of the prompts
    text = tokenize(["edema"] * 4)
    engine = Engine(lambda engine, batch: inferer(images, engine.network, **text))
    engine.network = make_network()
    inferer.attach(engine)
    engine.run(range(5))
    assert calls == [2]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_tuning_step_embeds_each_class_once_for_a_batch_of_any_size(batch_size, make_network, tokenize):
    network = make_network().eval()
    prompt = PromptLearner(network.text_encoder, tokenize, length=3, context="per_class", classes=2)
    network.learn_prompt(prompt)
    tokens = []
    network.text_encoder.language_model.register_forward_pre_hook(
        lambda _, args, inputs: tokens.append(inputs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    inferer = ClassPromptInferer(PROMPTS, tokenize, "multiclass")
    logits = inferer(torch.nn.functional.normalize(torch.randn(batch_size, 8)), network)
    assert logits.shape == (batch_size, 2)
    words = int(inferer.tokenized["attention_mask"].sum())
    assert tokens == [2 * 3 + words + 2], "two contexts, the words of both classes and their EOS, in one pass"
    logits.sum().backward()
    assert prompt.context.grad is not None


@pytest.mark.parametrize("kind", [ZeroShotInferer, ClassPromptInferer])
def test_classes_that_the_window_makes_equal_are_refused(kind, tokenize):
    prompts = {"edema": ["very " * 40 + "edema"], "ascites": ["ascites", "very " * 40 + "ascites"]}
    with pytest.raises(BundleError, match="'edema' and 'ascites' have equal tokens once cut to max_caption_tokens 32"):
        kind(prompts, tokenize, "multiclass")


def test_a_negative_prompt_that_the_window_makes_equal_is_refused(tokenize):
    negatives = {"edema": ["with " * 40 + "no edema"]}
    prompts = {"edema": ["with " * 40 + "edema"], "no finding": ["no finding"]}
    with pytest.raises(BundleError, match="a positive and a negative prompt of 'edema' have equal tokens once cut"):
        ZeroShotInferer(prompts, tokenize, "multilabel", negatives=negatives)
    ZeroShotInferer(prompts, tokenize, "multilabel", negatives={"edema": ["no finding"]})


def test_an_inferer_that_is_not_attached_says_so(make_network, images, tokenize):
    with pytest.raises(RuntimeError, match="handlers"):
        ZeroShotInferer(PROMPTS, tokenize, "multiclass")(images, make_network(), **tokenize(["edema"] * 4))


def test_variants_score_against_single_prompts(make_network, images, tokenize):
    network = make_network().eval()
    prompts = {"edema": ["edema", "with edema", "edema is seen"], "no finding": ["normal", "no finding"]}
    inferer = ZeroShotInferer(prompts, tokenize, "multilabel", retrieval=False, variants=True)
    assert [list(texts.values()) for texts in inferer.variant_prompts] == [
        ["edema", "normal"],
        ["with edema", "no finding"],
        ["edema is seen", "normal"],
    ]
    with torch.no_grad():
        inferer.embed_prompts(network)
        found = inferer(images, network)
        single = ZeroShotInferer({"edema": ["with edema"], "no finding": ["no finding"]}, tokenize, "multilabel", False)
        single.embed_prompts(network)
        expected = single(images, network)["logits"]
    assert found["variant_logits"].shape == (len(images), 3, 2)
    torch.testing.assert_close(found["variant_logits"][:, 1], expected)
    assert "variant_logits" not in single(images, network)
