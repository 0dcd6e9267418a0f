import pytest

from cleft_bundle.checkpoints import RunIdentity, run_of, run_of_file, save
from cleft_bundle.checkpoints.training_state import FORMAT, check_same_data
from cleft_bundle.errors import BundleError


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "training.pt"
    save({"training_format": FORMAT, "run": {"id": "a" * 32, "name": "train_a"}}, path)
    return path


def test_identities_differ_where_names_do_not():
    first, second = RunIdentity("mine", ()), RunIdentity("mine", ())
    assert first.id != second.id
    assert len(first.id) == 32
    assert first.state_dict() == {"id": first.id, "name": "mine"}


@pytest.mark.parametrize("resume", [True, "auto"])
def test_a_continuation_keeps_identity_and_name(stored, resume):
    continued = RunIdentity("another", (), stored, resume)
    assert continued.state_dict() == {"id": "a" * 32, "name": "train_a"}
    assert continued.resumed is not None


def test_nothing_to_resume(tmp_path):
    assert RunIdentity("new", (), tmp_path / "none.pt", "auto").resumed is None
    assert RunIdentity("new", (), None, False).resumed is None
    with pytest.raises(BundleError, match="there is nothing to resume"):
        RunIdentity("new", (), tmp_path / "none.pt", True)
    with pytest.raises(BundleError, match="resume: expected true, false or auto, got 'never'"):
        RunIdentity("new", (), tmp_path / "none.pt", "never")


def test_files_of_other_runs_are_refused_by_name(tmp_path):
    mine, other = RunIdentity("mine", ()), RunIdentity("other", ())
    mine.check_own({"run": mine.state_dict()}, "best.pt")
    with pytest.raises(BundleError, match=r"best\.pt was written by run other, not by this one, mine"):
        mine.check_own({"run": other.state_dict()}, "best.pt")
    with pytest.raises(BundleError, match="an unknown run"):
        mine.check_own({"weights": {}}, "best.pt")
    save({"run": other.state_dict()}, tmp_path / "cleft.pt")
    assert run_of_file(tmp_path / "cleft.pt") == other.state_dict()
    assert run_of([]) == run_of({"run": 3}) == {}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"fingerprint": "other"}, "fingerprint of the data"),
        ({"step_images": 16}, "images of a step .* is another one than in run train_a: 8 then, 16 now"),
        ({"epoch_length": 4}, "steps of an epoch is another one than in run train_a: 8 then, 4 now"),
    ],
)
def test_other_data_are_refused_by_what_differs(changed, named):
    data = {"fingerprint": "data", "step_images": 8, "epoch_length": 8}
    check_same_data(data, data, "train_a")
    with pytest.raises(BundleError, match=named):
        check_same_data(data, data | changed, "train_a")


def test_an_error_gives_the_folders_back(tmp_path):
    identity = RunIdentity("run", (tmp_path / "eval", tmp_path / "eval", tmp_path / "models"))
    identity.lock(make_folders=False)
    assert list(tmp_path.iterdir()) == []

    def fail():
        with identity.writing():
            assert (tmp_path / "models" / ".run.json").is_file()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not (tmp_path / "models" / ".run.json").exists()
    with identity.writing():
        pass
    assert (tmp_path / "eval" / ".run.json").is_file()
    with identity.writing(last=True):
        pass
    assert not (tmp_path / "eval" / ".run.json").exists()
