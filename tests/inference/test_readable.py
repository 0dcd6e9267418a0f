import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.inference import ReadableInferer
from cleft_bundle.inference.readable import predict
from cleft_bundle.networks import ExportedClassifier


class Summing(ExportedClassifier):
    """A network of which one sees how many images it meets."""

    def __init__(self):
        settings = {"class_names": ["a"], "task": "multilabel", "preprocessing": {}, "operating_point": {}}
        super().__init__("a file", settings | {"calibration": {"temperature": 2.0, "bias": [1.0]}})
        self.met = []

    def logits(self, image):
        self.met.append(len(image))
        return image.sum(dim=1, keepdim=True)


def test_an_empty_batch_never_meets_the_network():
    network = Summing()
    assert ReadableInferer()(torch.zeros(0, 1, 1, 1), network).shape == (0, 0)
    assert network.met == []


def test_scores_are_calibrated_in_double_precision():
    found = predict(Summing(), torch.tensor([[40.0], [42.0]]))
    assert found.logits.tolist() == [[40.0], [42.0]]
    assert found.scores.dtype == torch.float64
    assert found.scores[:, 0].tolist() == pytest.approx(
        (1 / (1 + (-torch.tensor([21.0, 22.0]).double()).exp())).tolist()
    )
    assert found.scores[0] < found.scores[1] < 1, "in float32 both would be 1"


def test_on_the_cpu_a_batch_is_divided():
    images = torch.arange(18.0).reshape(9, 2)
    divided, whole = Summing(), Summing()
    scores = ReadableInferer()(images, divided)
    assert torch.equal(scores, ReadableInferer(cpu_images=16)(images, whole))
    assert divided.met == [4, 4, 1]
    assert whole.met == [9]


def test_exported_files_have_no_embeddings():
    with pytest.raises(BundleError, match="an exported classifier gives no embeddings"):
        predict(Summing(), torch.ones(1, 2), embeddings=True)
