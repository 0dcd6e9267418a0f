import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose

from cleft_bundle.data import calibration_loader, training_loader, validation_loader
from cleft_bundle.errors import BundleError


def items(count):
    texts = [f"a long caption number {number}" for number in range(count)]
    return [
        {
            "image": torch.full((1, 2, 2), float(n)),
            "name": str(n),
            "caption": texts[n],
            "label": [1.0],
            "patient_id": "a",
        }
        for n in range(count)
    ]


def order(loader):
    return [name for batch in loader for name in batch["name"]]


def test_training_batches_follow_the_seed_alone(tokenize):
    data = Dataset(items(10), Compose([]))
    first = order(training_loader(data, tokenize, 4, seed=3))
    assert len(first) == 8  # the smaller last batch is left out
    assert first == order(training_loader(data, tokenize, 4, seed=3))
    assert first != order(training_loader(data, tokenize, 4, seed=4))
    assert sorted(order(training_loader(data, tokenize, 4, drop_last=False)), key=int) == list(map(str, range(10)))


@pytest.mark.parametrize("captioned", [True, False])
def test_cut_captions_are_told_where_they_are_trained_on(captioned, tokenize, caplog, monkeypatch):
    monkeypatch.setattr(tokenize, "max_length", 3)
    training_loader(Dataset(items(4), Compose([])), tokenize, 2, captioned=captioned)
    assert any("are cut" in message for message in caplog.messages) is captioned


def test_validation_batches_are_in_order_and_calibration_needs_items(tokenize):
    data = Dataset(items(5), Compose([]))
    assert order(validation_loader(data, tokenize, 2)) == list("01234")
    assert calibration_loader([], Compose([]), tokenize, 2) is None


def test_balanced_batches_are_as_many_and_an_unknown_word_is_refused(tokenize):
    data = Dataset([item | {"label": [float(number < 2)]} for number, item in enumerate(items(12))], Compose([]))
    names = order(training_loader(data, tokenize, 4, sampling="balanced"))
    assert len(names) == 12
    assert sum(name in "01" for name in names) > 3  # two of twelve items, half of the draws
    with pytest.raises(BundleError, match="sampling: expected one of natural, balanced, got 'fair'"):
        training_loader(data, tokenize, 4, sampling="fair")


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_are_kept_for_the_next_epoch_and_read_ahead(workers, tokenize):
    data = Dataset(items(10), Compose([]))
    loader = training_loader(data, tokenize, 4, num_workers=workers)
    assert (loader.persistent_workers, loader.prefetch_factor) == ((True, 4) if workers else (False, None))
    assert loader.pin_memory is torch.cuda.is_available()
    assert not validation_loader(data, tokenize, 4, num_workers=workers).persistent_workers
    assert order(loader) == order(training_loader(data, tokenize, 4))
