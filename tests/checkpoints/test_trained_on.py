import time

import pytest
import torch

from cleft_bundle.checkpoints import (
    ROLES,
    TrainedOn,
    TrainedState,
    check_not_trained_on,
    check_pictures,
    load_classifier,
    picture_roles,
    provenance_of,
    roles,
    save,
    training_images,
    unknown_roles,
)
from cleft_bundle.checkpoints.patient_roles import patient_digests, salt_probe
from cleft_bundle.data import fingerprint, pseudonym
from cleft_bundle.data.pictures import PICTURE
from cleft_bundle.data.pseudonyms import SALT_VARIABLE, keyed_digest
from cleft_bundle.errors import BundleError


def items(*patients, **details):
    return [{"name": f"{n}.png", "caption": "c", "patient_id": pseudonym(f"p{n}"), **details} for n in patients]


def splits(train, validation=(), test=()):
    return {"train": items(*train), "validation": items(*validation), "test": items(*test)}


def used(**counts):
    return dict.fromkeys(ROLES, 0) | counts


@pytest.fixture
def checkpoint(make_network, tmp_path):
    """Write a checkpoint that was trained on patients 0 to 9 and validated on 10 to 12."""
    divided = splits(range(10), range(10, 13))
    save(TrainedState(make_network(), TrainedOn(divided)).state_dict(), tmp_path / "cleft.pt")
    return tmp_path / "cleft.pt"


@pytest.fixture
def classifier_of(classifier, tmp_path):
    """Write a model.pt of some provenance."""

    def write(provenance):
        before = classifier.provenance
        classifier.provenance = provenance
        save(classifier.state_dict(), tmp_path / "model.pt")
        classifier.provenance = before
        return tmp_path / "model.pt"

    return write


@pytest.fixture
def old_checkpoint(tmp_path):
    """A file of release 0.6, which knows the training patients 0 to 9 and nothing else."""
    stored = {"fingerprint": "f" * 64, "salt": salt_probe(), "patients": patient_digests(items(*range(10)))}
    save({"trained_on": stored}, tmp_path / "old.pt")
    return tmp_path / "old.pt"


def test_it_remembers_the_split_and_its_patients_by_role(checkpoint):
    stored = torch.load(checkpoint, weights_only=True)["trained_on"]
    assert stored["fingerprint"] == fingerprint(splits(range(10), range(10, 13)))
    assert stored["counts"] == used(weights=10, epoch=3)
    assert roles(checkpoint, items(3, 3, 4, 11, 99)) == used(weights=2, epoch=1)
    assert unknown_roles(checkpoint) == ()


def test_new_patients_pass_and_known_ones_are_counted(checkpoint, caplog):
    check_not_trained_on(checkpoint, items(10, 11, 12, 99))
    check_not_trained_on(checkpoint, items(99), split="test")
    assert caplog.text == ""
    with pytest.raises(BundleError, match=r"trained on 2 of the 4 patients.*--allow_trained_patients true") as caught:
        check_not_trained_on(checkpoint, items(3, 3, 4, 10, 11))
    assert "\n" not in str(caught.value)
    assert pseudonym("p3") not in str(caught.value)


def test_the_override_makes_a_warning_of_it(checkpoint, caplog):
    check_not_trained_on(checkpoint, items(3, 10), allow=True)
    assert "trained on 1 of the 2 patients" in caplog.text


def test_a_test_on_patients_who_chose_something_is_refused(checkpoint, classifier_of, caplog):
    model = classifier_of(provenance_of(checkpoint, items(11, 12, 13)))
    assert roles(model, items(10, 11, 12, 13)) == used(epoch=3, calibration=3, thresholds=3)
    expected = (
        r"4 of the 5 patients of split test .*\(epoch 3, calibration 3, thresholds 3\).*--allow_chosen_patients true"
    )
    with pytest.raises(BundleError, match=expected) as caught:
        check_not_trained_on(model, items(10, 11, 12, 13, 99), split="test")
    assert "\n" not in str(caught.value)
    for allowed in ({"allow_chosen": True}, {"allow": True}):
        check_not_trained_on(model, items(10, 11, 12, 13, 99), split="test", **allowed)
    with pytest.raises(BundleError, match="was trained on 1 of the 2 patients"):
        check_not_trained_on(model, items(0, 10), split="test", allow_chosen=True)
    assert "epoch 3" in caplog.text


def test_evaluating_the_validation_patients_is_possible_and_said_to_flatter(checkpoint, caplog):
    check_not_trained_on(checkpoint, items(10, 11, 12), split="validation")
    assert "3 of the 3 patients of split validation" in caplog.text
    assert "(epoch 3)" in caplog.text


def test_a_checkpoint_that_knows_no_patients_is_a_warning(make_network, tmp_path, caplog):
    save(TrainedState(make_network()).state_dict(), tmp_path / "imported.pt")
    check_not_trained_on(tmp_path / "imported.pt", items(3), split="test")
    assert "unknown" in caplog.text
    assert roles(tmp_path / "imported.pt", items(3)) == {}
    assert unknown_roles(tmp_path / "imported.pt") == ROLES
    assert training_images(tmp_path / "imported.pt") == {}
    second = TrainedOn(splits([3], [4]), str(tmp_path / "imported.pt"))
    save({"trained_on": second.state_dict()}, tmp_path / "second.pt")
    assert roles(tmp_path / "second.pt", items(3, 4, 5)) == used(weights=1, epoch=1)
    assert unknown_roles(tmp_path / "second.pt") == ROLES, "whom the imported one was trained on is still unknown"


def test_an_old_file_is_read_and_what_it_does_not_know_is_said(old_checkpoint, tmp_path, caplog):
    assert roles(old_checkpoint, items(3, 4, 20)) == {"weights": 2, "prompts": 0, "calibration": 0, "thresholds": 0}
    assert unknown_roles(old_checkpoint) == ("epoch",)
    with pytest.raises(BundleError, match="trained on 2 of the 3 patients"):
        check_not_trained_on(old_checkpoint, items(3, 4, 20))
    check_not_trained_on(old_checkpoint, items(20), split="test")
    assert "does not say which patients were used for epoch" in caplog.text
    second = TrainedOn(splits([20], [21]), str(old_checkpoint))
    save({"trained_on": second.state_dict()}, tmp_path / "second.pt")
    assert roles(tmp_path / "second.pt", items(3, 20, 21)) == used(weights=2, epoch=1)
    assert unknown_roles(tmp_path / "second.pt") == ("epoch",)


def test_another_salt_is_an_error_and_not_a_pass(checkpoint, monkeypatch, caplog):
    monkeypatch.setenv(SALT_VARIABLE, "a hospital's secret")
    with pytest.raises(BundleError, match=f"another salt.*{SALT_VARIABLE}"):
        check_not_trained_on(checkpoint, items(99))
    check_not_trained_on(checkpoint, items(99), allow=True)
    assert "another salt" in caplog.text
    assert roles(checkpoint, items(3)) == {}
    assert unknown_roles(checkpoint) == ROLES
    with pytest.raises(BundleError, match="another salt"):
        TrainedOn(splits([1]), str(checkpoint))
    with pytest.raises(BundleError, match="another salt"):
        provenance_of(checkpoint, items(99))


def test_a_second_training_adds_its_patients_to_those_of_the_first(checkpoint, make_network, tmp_path):
    second = TrainedOn(splits([9, 20, 21], [30]), str(checkpoint), learnt="prompts")
    save(TrainedState(make_network(), second).state_dict(), tmp_path / "prompt.pt")
    assert roles(tmp_path / "prompt.pt", items(0, 9, 10, 20, 30)) == used(weights=2, prompts=2, epoch=2)
    for patient in (0, 9, 20, 21):
        with pytest.raises(BundleError, match="trained on 1 of the 1 patients"):
            check_not_trained_on(tmp_path / "prompt.pt", items(patient))
    check_not_trained_on(tmp_path / "prompt.pt", items(30))
    with pytest.raises(BundleError, match=r"2 of the 2 patients of split test.*epoch 2"):
        check_not_trained_on(tmp_path / "prompt.pt", items(10, 30), split="test")


def test_a_classifier_hands_its_patients_to_what_is_trained_from_it(checkpoint, classifier_of, tmp_path):
    model = classifier_of(provenance_of(checkpoint, items(10, 11, 12)))
    labels = TrainedOn(splits([40], [41]), [str(checkpoint), str(model)]).calibrated()
    served = load_classifier(classifier_of({"run": {}, "trained_on": labels.state_dict()})).provenance
    expected = used(weights=2, epoch=2, calibration=2, thresholds=2)
    assert roles(served, items(0, 10, 40, 41)) == roles(tmp_path / "model.pt", items(0, 10, 40, 41)) == expected
    with pytest.raises(BundleError, match="the classifier: it was trained on 1"):
        check_not_trained_on(served, items(40))


def test_patients_can_be_forgotten_and_their_number_stays(checkpoint, classifier_of, caplog):
    provenance = provenance_of(checkpoint, items(10, 11), remember=False)
    model = classifier_of(provenance)
    assert provenance["trained_on"]["patients"] == {}
    assert provenance["trained_on"]["counts"] == used(weights=10, epoch=3, calibration=2, thresholds=2)
    assert roles(model, items(0, 10)) == {}
    assert unknown_roles(model) == ROLES
    check_not_trained_on(model, items(0), split="test")
    assert "unknown" in caplog.text
    assert TrainedOn(splits([1], [2]), remember=False).state_dict()["patients"] == {}
    later = TrainedOn(splits([40], [41]), str(model)).state_dict()
    assert later["counts"]["weights"] == 11, "of some of whom nothing more is known"
    assert later["unknown"] == sorted(ROLES)


def test_training_images_are_counted_and_rare_values_are_not_told(checkpoint, tmp_path):
    train = [
        *items(*range(7), view="PA", age=34.5),
        *items(7, 8, view="AP", age=90.0),
        *items(9, view="LATERAL"),
        *items(*range(10, 15), age=float("nan")),
    ]
    first = TrainedOn({"train": train, "validation": items(20, view="LL")})
    save({"trained_on": first.state_dict()}, tmp_path / "first.pt")
    assert training_images(tmp_path / "first.pt") == {
        "images": 15,
        "patients": 15,
        "view": {"PA": 7, "unknown": 5, "rare": 3},
        "age": {"30-39": 7, "unknown": 6, "rare": 2},
    }
    second = TrainedOn(
        {"train": items(*range(30, 36), view="AP", sex="F"), "validation": []}, str(tmp_path / "first.pt")
    )
    assert second.state_dict()["images"] == {
        "images": 21,
        "patients": 21,
        "view": {"PA": 7, "AP": 6, "unknown": 5, "rare": 3},
        "age": {"30-39": 7, "unknown": 12, "rare": 2},
        "sex": {"unknown": 15, "F": 6},
    }


def test_pictures_are_remembered_and_found_under_other_patients(make_network, classifier_of, tmp_path, caplog):
    def showing(picture, patient):
        return [item | {PICTURE: picture and keyed_digest(picture, 8)} for item in items(patient)]

    divided = {"train": showing("a", 0) + showing("b", 1) + showing("", 2), "validation": showing("c", 3)}
    trained = TrainedOn(divided)
    trained.see({**divided, "train": divided["train"] + items(4)})  # of the last one the cache knows nothing
    save(TrainedState(make_network(), trained).state_dict(), tmp_path / "cleft.pt")
    evaluated = [
        *showing("a", 0),
        *showing("b", 10),
        *showing("c", 11),
        *showing("", 12),
        *showing("d", 13),
        *items(14),
    ]
    for source in (tmp_path / "cleft.pt", classifier_of(provenance_of(tmp_path / "cleft.pt"))):
        assert picture_roles(source, evaluated) == {"known": 5, "learnt": 2, "chosen": 1}
        assert check_pictures(source, evaluated) == {"known": 4, "learnt": 1, "chosen": 1}, "patient 0 is known anyway"
    assert "1 of the 6 images to be evaluated are pictures that it was trained on, and 1 that it was" in caplog.text
    second = TrainedOn(splits([20], [21]), str(tmp_path / "cleft.pt"))
    save({"trained_on": second.state_dict()}, tmp_path / "second.pt")
    assert picture_roles(tmp_path / "second.pt", showing("a", 30)) == {"known": 1, "learnt": 1, "chosen": 0}
    assert second.memory.forgotten().state_dict()["pictures"] == {}
    caplog.clear()
    assert check_pictures(tmp_path / "cleft.pt", showing("d", 13)) == {"known": 1, "learnt": 0, "chosen": 0}
    assert caplog.text == ""


def test_a_file_that_knows_no_pictures_says_nothing_of_them(old_checkpoint, monkeypatch):
    assert picture_roles(old_checkpoint, items(1)) == check_pictures(old_checkpoint, items(1)) == {}
    monkeypatch.setenv(SALT_VARIABLE, "a hospital's secret")
    assert picture_roles(old_checkpoint, items(1)) == {}


def test_many_patients_are_quick_and_small(tmp_path):
    trained = TrainedOn({"train": items(*range(65000)), "validation": [], "test": []})
    save({"trained_on": trained.state_dict()}, tmp_path / "many.pt")
    assert (tmp_path / "many.pt").stat().st_size < 750_000
    start = time.perf_counter()
    with pytest.raises(BundleError, match="trained on 65000 of the 65001 patients"):
        check_not_trained_on(tmp_path / "many.pt", items(*range(65001)))
    assert time.perf_counter() - start < 10
