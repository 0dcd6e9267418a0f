import torch

from cleft_bundle.inferers import ReadableInferer


def test_an_empty_batch_never_meets_the_network():
    def network(inputs):
        raise AssertionError

    assert ReadableInferer()(torch.zeros(0, 1, 1, 1), network).shape == (0, 0)


def test_other_batches_do():
    assert torch.equal(ReadableInferer()(torch.ones(2, 3), lambda inputs: inputs * 2), torch.full((2, 3), 2.0))


def test_on_the_cpu_a_batch_is_divided():
    met = []

    def network(inputs):
        met.append(len(inputs))
        return inputs.sum(dim=1, keepdim=True)

    images = torch.arange(18.0).reshape(9, 2)
    assert torch.equal(ReadableInferer()(images, network), network(images))
    assert met == [4, 4, 1, 9]
    met.clear()
    ReadableInferer(cpu_images=16)(images, network)
    assert met == [9]
