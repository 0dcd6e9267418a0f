import pytest
import torch

from cleft_bundle.checkpoints import TrainedState, load_trained, save
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import Lora
from cleft_bundle.networks.backbones import value_fingerprint


@pytest.fixture
def trained(make_network):
    network = make_network()
    with torch.no_grad():
        for index, parameter in enumerate(p for p in network.parameters() if p.requires_grad):
            parameter.add_(0.01 * (index + 1))
    return network


def test_what_was_trained_comes_back_and_nothing_frozen_is_stored(trained, make_network, tmp_path, images, tokenize):
    save(TrainedState(trained).state_dict(), tmp_path / "cleft.pt")
    stored = torch.load(tmp_path / "cleft.pt", weights_only=True)["weights"]
    assert set(stored) == {name for name, p in trained.named_parameters() if p.requires_grad}
    loaded = load_trained(make_network(), tmp_path / "cleft.pt").eval()
    text = tokenize(["edema"] * 4)
    for a, b in zip(loaded(images, **text), trained.eval()(images, **text), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_language_model_may_come_in_another_precision(dtype, trained, make_network):
    other = make_network(dtype=dtype)
    TrainedState(other).load_state_dict(TrainedState(trained).state_dict())
    assert torch.equal(other.image_encoder.projection.weight, trained.image_encoder.projection.weight)


def test_a_file_of_release_0_6_is_known_by_its_fingerprint(trained, make_network):
    state = TrainedState(trained).state_dict()
    state["text_backbone"]["fingerprint"] = value_fingerprint(
        make_network(peft="none").text_encoder.backbone.named_parameters()
    )
    assert state["text_backbone"]["fingerprint"] != trained.text_encoder.fingerprint
    TrainedState(make_network()).load_state_dict(state)
    with pytest.raises(BundleError, match="was trained on the language model"):
        TrainedState(make_network(seed=1)).load_state_dict(state)


def test_another_language_model_is_refused_with_both_fingerprints(trained, make_network):
    other = make_network(seed=1)
    with pytest.raises(BundleError) as caught:
        TrainedState(other).load_state_dict(TrainedState(trained).state_dict())
    assert trained.text_encoder.fingerprint[:16] in str(caught.value)
    assert other.text_encoder.fingerprint[:16] in str(caught.value)


def test_another_architecture_is_refused_and_the_network_stays_as_it_was(trained, make_network):
    other = make_network(peft=Lora(r=4))
    before = {name: p.clone() for name, p in other.named_parameters()}
    with pytest.raises(BundleError, match=r"does not fit the network.*lora_"):
        TrainedState(other).load_state_dict(TrainedState(trained).state_dict())
    assert all(torch.equal(before[name], p) for name, p in other.named_parameters())


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_missing_or_broken_file_is_one_line(content, make_network, tmp_path):
    path = tmp_path / "cleft.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"cleft\.pt") as caught:
        load_trained(make_network(), path)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_refused(make_network, tmp_path):
    save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(BundleError, match=r"other\.pt: this is not a CLEFT checkpoint"):
        load_trained(make_network(), tmp_path / "other.pt")
