import torch

from cleft_bundle.inferers import ReadableInferer


def test_an_empty_batch_never_meets_the_network():
    def network(inputs):
        raise AssertionError

    assert ReadableInferer()(torch.zeros(0, 1, 1, 1), network).shape == (0, 0)


def test_other_batches_do():
    assert torch.equal(ReadableInferer()(torch.ones(2, 3), lambda inputs: inputs * 2), torch.full((2, 3), 2.0))
