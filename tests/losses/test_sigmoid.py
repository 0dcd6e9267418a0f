import numpy as np
import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.losses import SigmoidLoss
from cleft_bundle.networks import Embeddings
from tests.losses.test_contrastive import unit_vectors


def reference(image, text, scale, bias, together):
    """Algorithm 1 of SigLIP in plain NumPy: labels of 1 and -1, the sum over pairs divided by the number of images."""
    logits = scale * image @ text.T + bias
    labels = np.where(together, 1.0, -1.0)
    return np.log1p(np.exp(-labels * logits)).sum() / len(image)


@pytest.mark.parametrize("positives", ["index", "caption"])
def test_it_equals_a_numpy_reference(positives):
    image, text = unit_vectors(0, 5), unit_vectors(1, 5)
    captions = torch.tensor([1, 2, 1, 3, 2])
    together = np.eye(5, dtype=bool) if positives == "index" else np.equal.outer(captions.numpy(), captions.numpy())
    got = SigmoidLoss(positives)(Embeddings(image, text, torch.tensor(7.0), torch.tensor(-3.0)), captions)
    assert got.item() == pytest.approx(reference(image.numpy(), text.numpy(), 7.0, -3.0, together), abs=1e-10)


def test_the_bias_learns():
    bias = torch.tensor(-10.0, requires_grad=True)
    loss = SigmoidLoss()(
        Embeddings(unit_vectors(0, 3), unit_vectors(1, 3), torch.tensor(10.0), bias), torch.tensor([1, 2, 3])
    )
    loss.backward()
    assert bias.grad is not None
    assert bias.grad < 0, "a bias of -10 is far too low for three pairs in nine"


def test_a_network_without_a_bias_is_refused():
    with pytest.raises(BundleError, match="logit_bias"):
        SigmoidLoss()(Embeddings(unit_vectors(0, 3), unit_vectors(1, 3), torch.tensor(1.0)), torch.tensor([1, 2, 3]))


def test_unknown_positives_are_refused():
    with pytest.raises(BundleError, match="positives: expected one of caption, index, labels, got 'pairs'"):
        SigmoidLoss("pairs")
