import logging
import math

import pytest
import torch
from torch.utils.data import DataLoader

from cleft_bundle.engines import planned_updates, warmup_cosine
from cleft_bundle.errors import BundleError


def rates(warmup_steps, updates, end_lr=0.0):
    """The rate of each update, by torch's own stepping."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warmup_cosine(optimizer, warmup_steps, updates, end_lr)
    seen = []
    for _ in range(updates):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen, optimizer.param_groups[0]["lr"]


def test_the_rate_climbs_and_then_follows_a_cosine_to_its_end():
    seen, end = rates(4, 12, 0.1)
    assert seen[:5] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    cosine = [1 + math.cos(math.pi * step / 8) for step in range(8)]
    assert seen[4:] == pytest.approx([max(0.1, rate) for rate in cosine])
    assert end == pytest.approx(0.1)


@pytest.mark.parametrize(("warmup_steps", "updates", "taken"), [(30, 30, 3), (4000, 25, 2), (30, 9, 0), (1, 1, 0)])
def test_a_warm_up_that_would_fill_the_run_is_cut_to_a_tenth_and_says_so(warmup_steps, updates, taken, caplog):
    with caplog.at_level(logging.WARNING):
        seen, end = rates(warmup_steps, updates)
    assert seen.index(max(seen)) == taken
    assert max(seen) == pytest.approx(2.0)
    assert end == pytest.approx(0.0)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"warmup_steps is {warmup_steps}, ")
    assert f" {updates} updates" in record.getMessage()


def test_a_shorter_warm_up_is_left_alone(caplog):
    with caplog.at_level(logging.WARNING):
        seen, _ = rates(29, 30)
    assert max(seen) == seen[-1] == pytest.approx(2.0)
    assert not caplog.records


def test_updates_are_planned_and_an_epoch_without_a_step_is_refused():
    images = torch.zeros(10, 1)
    loader = DataLoader(images, batch_size=3, drop_last=True)
    assert planned_updates(loader, epochs=4, accumulation_steps=2) == 8
    with pytest.raises(BundleError, match="batch_size: 11 images a batch and process are more than the 10 training"):
        planned_updates(DataLoader(images, batch_size=11, drop_last=True), epochs=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 5, 0.0), "warmup_steps: expected 0 or more, got -1"),
        ((1, 0, 0.0), "updates: expected 1 or more, got 0"),
        ((1, 5, -0.1), "final_learning_rate: expected 0 or more, got -0.1"),
    ],
)
def test_wrong_numbers_are_refused(arguments, message):
    with pytest.raises(BundleError, match=message):
        warmup_cosine(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]), *arguments)
