import numpy as np
import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ContrastiveLoss
from cleft_bundle.networks import Embeddings


def unit_vectors(seed, rows, width=6):
    values = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=1)


def reference(image, text, scale, positives):
    """Equation 1 of UniCL in plain NumPy; with every image its own positive it is CLIP's loss."""
    logits = scale * image @ text.T
    total = 0.0
    for direction in (logits, logits.T):
        for row, values in enumerate(direction):
            shifted = values - values.max()
            log_probability = shifted - np.log(np.exp(shifted).sum())
            total -= log_probability[positives[row]].mean() / len(direction)
    return total


@pytest.mark.parametrize(
    ("positives", "captions"), [("index", [1, 2, 1, 3, 2]), ("caption", [1, 2, 1, 3, 2]), ("caption", [1, 2, 3, 4, 5])]
)
def test_it_equals_a_numpy_reference(positives, captions):
    image, text, scale = unit_vectors(0, 5), unit_vectors(1, 5), 7.0
    captions = torch.tensor(captions)
    own = np.eye(5, dtype=bool) if positives == "index" else np.equal.outer(captions.numpy(), captions.numpy())
    got = ContrastiveLoss(positives)(Embeddings(image, text, torch.tensor(scale)), captions)
    assert got.item() == pytest.approx(reference(image.numpy(), text.numpy(), scale, own), abs=1e-10)


def test_labels_share_the_target_by_their_overlap():
    nan = float("nan")  # images of which nothing is known are no positives of each other, nor of healthy ones
    rows = [[1, 1, 0], [1, 0, nan], [0, 0, 0], [0, 0, 0], [0, nan, 0], [nan, nan, nan], [nan, nan, nan]]
    labels = torch.tensor(rows, dtype=torch.float64)
    overlap = np.eye(7)
    overlap[0, 1] = overlap[1, 0] = 0.5
    overlap[2, 3] = overlap[3, 2] = 1
    share = overlap / overlap.sum(axis=1, keepdims=True)
    image, text = unit_vectors(0, 7), unit_vectors(1, 7)
    expected = 0.0
    for logits in (5.0 * image.numpy() @ text.numpy().T, 5.0 * text.numpy() @ image.numpy().T):
        log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected -= (share * log_probability).sum(axis=1).mean()
    got = ContrastiveLoss("labels")(Embeddings(image, text, torch.tensor(5.0)), labels)
    assert got.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("positives", ["index", "caption"])
def test_it_is_symmetric_in_image_and_text(positives):
    image, text, captions = unit_vectors(0, 4), unit_vectors(1, 4), torch.tensor([1, 1, 2, 3])
    loss = ContrastiveLoss(positives)
    torch.testing.assert_close(
        loss(Embeddings(image, text, torch.tensor(5.0)), captions),
        loss(Embeddings(text, image, torch.tensor(5.0)), captions),
    )


def test_equal_captions_are_pushed_apart_by_index_only():
    """With perfect alignment of two equal pairs, the caption loss sits at its minimum and the index loss pulls."""
    image = unit_vectors(0, 2)[[0, 0, 1]].requires_grad_()
    captions = torch.tensor([1, 1, 2])
    gradients = {}
    for positives in ("index", "caption"):
        text = image.detach()[[0, 1, 2]] + torch.tensor([[0.1], [-0.1], [0.0]])
        (gradient,) = torch.autograd.grad(
            ContrastiveLoss(positives)(Embeddings(image, text, torch.tensor(10.0)), captions), image
        )
        gradients[positives] = (gradient[0] - gradient[1]).norm()
    assert gradients["index"] > 10 * gradients["caption"]


def test_wrong_use_is_refused():
    with pytest.raises(BundleError, match="positives"):
        ContrastiveLoss("all")
    with pytest.raises(BundleError, match="at least two images"):
        ContrastiveLoss()(Embeddings(unit_vectors(0, 1), unit_vectors(1, 1), torch.tensor(1.0)), torch.tensor([1]))
