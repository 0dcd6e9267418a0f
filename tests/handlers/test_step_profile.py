"""Where the time of a step goes, by the parts that it names."""

import json
import time
from types import SimpleNamespace

import pytest
import torch

from cleft_bundle import parts
from cleft_bundle.engines import TrainingStep
from cleft_bundle.handlers import StepProfile, step_profile
from tests.engines.test_training_step import batch, trained


@pytest.fixture
def clock():
    clock = parts.Clock(torch.device("cpu"))
    parts.run(clock)
    yield clock
    parts.run(None)


def test_a_part_is_counted_without_those_within_it(clock):
    clock.switch("rest of the step")
    with parts.timed("outer"):
        time.sleep(0.02)
        with parts.timed("inner"):
            time.sleep(0.04)
    clock.switch(parts.REST)
    seconds = clock.seconds()
    assert seconds["inner"] >= 0.04
    assert seconds["outer"] >= 0.02
    assert sum(seconds.values()) == pytest.approx(clock._marks[-1][1] - clock._marks[0][1])


def test_a_part_ends_where_an_error_leaves_it(clock):
    with pytest.raises(ZeroDivisionError), parts.timed("outer"):
        raise ZeroDivisionError
    assert clock.switch("next") == parts.REST


def test_the_backward_pass_is_told_apart_by_tower(clock):
    image, text = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    first, second = image * 2, text * 3
    parts.at_gradient(first, "image")
    parts.at_gradient(second, "text")
    parts.at_gradient(torch.ones(2), "frozen")
    with parts.timed("loss"):
        (first * second).sum().backward()
    assert [name for name, _ in clock._marks] == ["loss", "text", "image", parts.REST]
    assert torch.equal(image.grad, torch.full((2,), 6.0))


def test_without_a_clock_nothing_is_measured(make_network, tokenize):
    assert parts._running is None
    tensor = torch.ones(1, requires_grad=True) * 1
    parts.at_gradient(tensor, "tower")
    assert not tensor._backward_hooks


@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_a_profile_names_the_parts_of_a_step_and_changes_nothing(chunk_size, steps, make_network, tokenize, tmp_path):
    network, data = make_network(), [batch(tokenize) for _ in range(steps)]
    kept = []
    tracker = SimpleNamespace(handler=None, keep=kept.extend)
    record = SimpleNamespace(output_dir=str(tmp_path), tracker=tracker)
    plain, _ = trained(network, data, TrainingStep(chunk_size))
    profiled, _ = trained(network, data, TrainingStep(chunk_size), train_handlers=[StepProfile(record)])
    for first, second in zip(plain.parameters(), profiled.parameters(), strict=True):
        assert torch.equal(first, second)
    lines = (tmp_path / "profile.md").read_text().splitlines()
    rows = {line.split("|")[1].strip(): float(line.split("|")[3]) for line in lines[4:]}
    together = rows.pop("together: loss, packing, tokenising, logging, checks")
    assert {"image tower, forward", "text tower, forward", "image tower, backward", "text tower, backward"} < set(rows)
    assert {"loss", "packing", "checks", "optimizer", "logging"} < set(rows)
    assert sum(rows.values()) == pytest.approx(100, abs=0.2)
    assert together == pytest.approx(sum(rows.get(name, 0) for name in step_profile.ASIDE), abs=0.05)
    assert parts._running is None
    assert "profile.md" in {path.name for path in kept}
    if steps == 9:
        assert {path.name for path in kept} == {"profile.md", "profile_trace.json"}
        events = json.loads((tmp_path / "profile_trace.json").read_text())["traceEvents"]
        assert any("addmm" in str(event.get("name")) for event in events)
