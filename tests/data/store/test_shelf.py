"""Numbers for values, and JSON for metadata."""

import numpy as np
import pytest
import torch

from cleft_bundle.data.store.shelf import Kind, from_json, quantised, restored, to_json


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.2, 0.3), (-3, 4), (0, 5000), (0.5, 0.5)])
def test_values_come_back_within_half_a_step(bits, low, high):
    values = np.random.default_rng(0).uniform(low, high, (1, 40, 50)).astype(np.float32)
    numbers, least, most = quantised(values, bits)
    assert numbers.dtype == f"<u{bits // 8}"
    step = (max(1, high) - min(0, low)) / (2**bits - 1)
    back = restored(numbers, least, most).numpy()
    assert back.dtype == np.float32
    assert np.abs(back.astype(float) - values.astype(float)).max() <= step / 2 * (1 + 1e-6) + 2e-7 * abs(high)


@pytest.mark.parametrize("bits", [8, 16])
def test_values_of_a_file_of_these_bits_come_back_to_the_last_bit(bits):
    levels = np.arange(2**bits, dtype=np.float32)[None, None] / np.float32(2**bits - 1)
    assert np.array_equal(restored(*quantised(levels, bits)).numpy(), levels)


def test_metadata_come_back_with_their_types():
    meta = {"a": (1, (2.5, "x")), "b": torch.eye(2, dtype=torch.float64), "c": [None, True], "d": {"e": []}}
    back = from_json(to_json(meta))
    assert back["a"] == meta["a"]
    assert torch.equal(back["b"], meta["b"])
    assert back["b"].dtype == torch.float64
    assert back["c"] == meta["c"]
    assert back["d"] == {"e": []}


def test_kinds_are_named_and_found_again():
    kind = Kind(16, (1, 224, 200))
    assert kind.title == "16bit-1x224x200"
    assert Kind.of(kind.title) == kind
    assert kind.bytes == 2 * 224 * 200
