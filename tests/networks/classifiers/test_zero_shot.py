import numpy as np
import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ZeroShotClassifier, class_weights, probabilities

PROMPTS = {"edema": ["with edema", "edema is seen"], "cardiomegaly": ["with cardiomegaly"], "no finding": ["normal"]}
SETTINGS = {"image_size": 28, "transforms": []}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def reference_embeddings(network, tokenize):
    network.eval()
    with torch.no_grad():
        groups = [network.encode_text(**tokenize(texts)).numpy() for texts in PROMPTS.values()]
    return np.stack([unit(group.mean(axis=0)) for group in groups])


def test_multiclass_weights_are_the_normalised_mean_of_each_class(make_network, tokenize):
    network = make_network()
    weights = class_weights(network, PROMPTS, tokenize, "multiclass")
    np.testing.assert_allclose(weights, reference_embeddings(network, tokenize), atol=1e-6)


def test_multilabel_scores_are_the_softmax_between_a_class_and_its_negative(make_network, images, tokenize):
    network = make_network().eval()
    positive = reference_embeddings(network, tokenize)
    negative = np.stack([positive[2], positive[2], unit(positive[:2].mean(axis=0))])
    with torch.no_grad():
        embedding = network.encode_image(images)
        weights = class_weights(network, PROMPTS, tokenize, "multilabel")
        got = probabilities(network.scale * embedding @ weights.T, "multilabel")
        logits = network.scale.item() * np.stack([embedding.numpy() @ side.T for side in (positive, negative)])
    expected = np.exp(logits[0]) / np.exp(logits).sum(axis=0)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_without_no_finding_the_other_classes_speak_against_a_class(make_network, tokenize):
    network = make_network()
    prompts = {name: PROMPTS[name] for name in ("edema", "cardiomegaly")}
    weights = class_weights(network, prompts, tokenize, "multilabel")
    torch.testing.assert_close(weights[0], -weights[1])


def test_a_negative_prompt_speaks_against_its_class_and_no_other(make_network, tokenize):
    network = make_network()
    plain = class_weights(network, PROMPTS, tokenize, "multilabel")
    against = {"edema": ["without edema", "no edema is seen"]}
    weights = class_weights(network, PROMPTS, tokenize, "multilabel", against)
    with torch.no_grad():
        negative = unit(network.encode_text(**tokenize(against["edema"])).numpy().mean(axis=0))
    np.testing.assert_allclose(weights[0], reference_embeddings(network, tokenize)[0] - negative, atol=1e-6)
    torch.testing.assert_close(weights[1:], plain[1:])


@pytest.mark.parametrize(
    ("task", "negatives", "message"),
    [
        ("multiclass", {"edema": ["without edema"]}, "negative prompts go with task 'multilabel'"),
        ("multilabel", {"oedema": ["without"]}, "negative prompts: oedema are none of the classes edema"),
    ],
)
def test_negatives_that_nothing_takes_are_refused(task, negatives, message, make_network, tokenize):
    with pytest.raises(BundleError, match=message):
        class_weights(make_network(), PROMPTS, tokenize, task, negatives)


def test_weights_leave_the_training_mode_as_it_was(make_network, tokenize):
    network = make_network().train()
    class_weights(network, PROMPTS, tokenize, "multiclass")
    assert network.training


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_classifier_scores_like_the_network_it_came_from(task, make_network, images, tokenize):
    network = make_network().eval()
    weights = class_weights(network, PROMPTS, tokenize, task)
    classifier = ZeroShotClassifier.from_cleft(network, list(PROMPTS), weights, task, SETTINGS)
    with torch.no_grad():
        expected = probabilities(network.scale * network.encode_image(images) @ weights.T, task)
        got = classifier(images)
    assert got.shape == (4, 3)
    torch.testing.assert_close(got, expected)
    if task == "multiclass":
        torch.testing.assert_close(got.sum(dim=1), torch.ones(4))


def test_its_state_dict_holds_tensors_only_and_no_text_tower(make_network, tokenize):
    network = make_network()
    weights = class_weights(network, PROMPTS, tokenize, "multiclass")
    state = ZeroShotClassifier.from_cleft(network, list(PROMPTS), weights, "multiclass", SETTINGS).state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert not any("text" in key for key in state)


def test_weights_of_other_classes_are_refused_even_when_not_strict(make_network, tokenize):
    network = make_network()
    weights = class_weights(network, PROMPTS, tokenize, "multiclass")
    state = ZeroShotClassifier.from_cleft(network, list(PROMPTS), weights, "multiclass", SETTINGS).state_dict()
    other = ZeroShotClassifier(network.image_encoder, ["a", "b", "c"], "multiclass")
    with pytest.raises(BundleError, match="class_names"):
        other.load_state_dict(state, strict=False)


@pytest.mark.parametrize(
    ("prompts", "task", "message"),
    [
        ({"edema": ["edema"]}, "multiclass", "at least two classes"),
        ({"edema": ["edema"], "other": []}, "multiclass", "no prompt for other"),
        (PROMPTS, "binary", "expected one of multiclass, multilabel"),
    ],
)
def test_wrong_use_is_refused(prompts, task, message, make_network, tokenize):
    with pytest.raises(BundleError, match=message):
        class_weights(make_network(), prompts, tokenize, task)
