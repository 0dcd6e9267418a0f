import time

import pytest
import torch

from cleft_bundle.checkpoints import TrainedOn, TrainedState, check_not_trained_on, save
from cleft_bundle.data import fingerprint, pseudonym
from cleft_bundle.data.pseudonyms import SALT_VARIABLE
from cleft_bundle.errors import BundleError


def items(*patients):
    return [{"name": f"{n}.png", "caption": "c", "patient_id": pseudonym(f"p{n}")} for n in patients]


def splits(train, validation=(), test=()):
    return {"train": items(*train), "validation": items(*validation), "test": items(*test)}


@pytest.fixture
def checkpoint(make_network, tmp_path):
    """Write a checkpoint that was trained on patients 0 to 9 and validated on 10 to 12."""
    divided = splits(range(10), range(10, 13))
    save(TrainedState(make_network(), TrainedOn(divided)).state_dict(), tmp_path / "cleft.pt")
    return tmp_path / "cleft.pt"


def test_it_remembers_the_split_and_its_training_patients(checkpoint):
    stored = torch.load(checkpoint, weights_only=True)["trained_on"]
    assert stored["fingerprint"] == fingerprint(splits(range(10), range(10, 13)))
    assert stored["patients"].shape == (10,)


def test_new_patients_pass_and_known_ones_are_counted(checkpoint, caplog):
    check_not_trained_on(checkpoint, items(10, 11, 12, 99))
    assert caplog.text == ""
    with pytest.raises(BundleError, match=r"trained on 2 of the 4 patients.*--allow_trained_patients true") as caught:
        check_not_trained_on(checkpoint, items(3, 3, 4, 10, 11))
    assert "\n" not in str(caught.value)
    assert pseudonym("p3") not in str(caught.value)


def test_the_override_makes_a_warning_of_it(checkpoint, caplog):
    check_not_trained_on(checkpoint, items(3, 10), allow=True)
    assert "trained on 1 of the 2 patients" in caplog.text


def test_a_checkpoint_that_knows_no_patients_is_a_warning(make_network, tmp_path, caplog):
    save(TrainedState(make_network()).state_dict(), tmp_path / "imported.pt")
    check_not_trained_on(tmp_path / "imported.pt", items(3))
    assert "unknown" in caplog.text


def test_another_salt_is_an_error_and_not_a_pass(checkpoint, monkeypatch, caplog):
    monkeypatch.setenv(SALT_VARIABLE, "a hospital's secret")
    with pytest.raises(BundleError, match=f"another salt.*{SALT_VARIABLE}"):
        check_not_trained_on(checkpoint, items(99))
    check_not_trained_on(checkpoint, items(99), allow=True)
    assert "another salt" in caplog.text
    with pytest.raises(BundleError, match="another salt"):
        TrainedOn(splits([1]), str(checkpoint))


def test_a_second_training_adds_its_patients_to_those_of_the_first(checkpoint, make_network, tmp_path):
    second = TrainedOn(splits([9, 20, 21], [30]), str(checkpoint))
    assert second.fingerprint == fingerprint(splits([9, 20, 21], [30]))
    save(TrainedState(make_network(), second).state_dict(), tmp_path / "prompt.pt")
    for patient in (0, 9, 20, 21):
        with pytest.raises(BundleError, match="trained on 1 of the 1 patients"):
            check_not_trained_on(tmp_path / "prompt.pt", items(patient))
    check_not_trained_on(tmp_path / "prompt.pt", items(30))


def test_many_patients_are_quick_and_small(tmp_path):
    trained = TrainedOn({"train": items(*range(65000)), "validation": [], "test": []})
    save({"trained_on": trained.state_dict()}, tmp_path / "many.pt")
    assert (tmp_path / "many.pt").stat().st_size < 600_000
    start = time.perf_counter()
    with pytest.raises(BundleError, match="trained on 65000 of the 65001 patients"):
        check_not_trained_on(tmp_path / "many.pt", items(*range(65001)))
    assert time.perf_counter() - start < 10
