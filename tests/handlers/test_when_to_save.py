import os
import signal

import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import WhenToSave
from cleft_bundle.handlers import when_to_save as module


def answers(when, steps=range(1, 7)):
    return [step for step in steps if when.asked(step)]


def test_by_steps():
    assert answers(WhenToSave(3)) == [3, 6]
    assert answers(WhenToSave(0)) == []
    assert not WhenToSave(0).ever


def test_by_minutes(monkeypatch):
    clock = iter([0, 59, 60, 200, 201, 230, 320])  # seconds
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    when = WhenToSave(0, minutes=2)
    assert not when.asked(1)
    assert not when.asked(2)
    assert when.asked(3)
    when.saved()  # at 201
    assert not when.asked(4)
    assert not when.asked(5)


def test_sigterm_asks_for_a_state_and_the_end_and_is_given_back():
    before = signal.getsignal(signal.SIGTERM)
    when = WhenToSave(100)
    with when.listening():
        assert not when.asked(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not when.end
        assert when.asked(2)
        assert when.end
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_writes_no_state_leaves_the_signal_alone():
    before = signal.getsignal(signal.SIGTERM)
    with WhenToSave(0).listening():
        assert signal.getsignal(signal.SIGTERM) is before


def test_several_processes_ask_each_other_every_ten_steps(monkeypatch):
    monkeypatch.setattr(module, "world_size", lambda: 2)
    monkeypatch.setattr(module, "gather_lists", lambda own: [*own, (True, False)])  # the other one was told to end
    when = WhenToSave(4)
    assert [step for step in range(1, 10) if when.asked(step)] == [4, 8]
    assert not when.end
    assert when.asked(10)
    assert when.end


@pytest.mark.parametrize(
    ("values", "name"), [((-1, None), "checkpoint_interval"), ((0, 0), "checkpoint_every_minutes")]
)
def test_what_is_out_of_range_is_refused(values, name):
    with pytest.raises(BundleError, match=f"{name}: expected"):
        WhenToSave(*values)
