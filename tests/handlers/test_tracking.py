import signal

import mlflow
import pytest
from ignite.engine import Engine

from cleft_bundle.checkpoints import RunIdentity
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import RunTracker, unique_run_name
from tests import processes

LOSS = {"loss": 1.0, "pred": (None, None, 14.0)}


@pytest.fixture(autouse=True)
def no_tracking_uri(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def tracker(tmp_path, name, **kwargs):
    uri = f"sqlite:///{tmp_path}/mlruns.db"
    return RunTracker(
        uri,
        RunIdentity(name, ()),
        experiment_name="test",
        output_transform=lambda output: {"train_loss": output["loss"]},
        **kwargs,
    )


def runs(tmp_path):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns.db")
    return {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("test").experiment_id])}


def test_a_finished_run_holds_parameters_metrics_and_artifacts(tmp_path):
    tracked = tracker(tmp_path, "good", experiment_param={"epochs": 2})
    engine = Engine(lambda engine, batch: LOSS)
    tracked.attach(engine)
    engine.run([0, 0])
    (tmp_path / "picture.png").write_bytes(b"png")
    tracked.finish([tmp_path / "picture.png", tmp_path / "missing.png"], {"auroc": 0.9})
    run = runs(tmp_path)["good"]
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "2"
    assert run.data.metrics["best_auroc"] == 0.9
    assert run.data.metrics["train_loss"] == 1.0
    artifacts = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns.db").list_artifacts(run.info.run_id)
    assert {artifact.path for artifact in artifacts} == {"config.json", "picture.png"}


def test_a_crash_ends_as_failed_and_the_next_run_is_its_own(tmp_path):
    def crash(engine, batch):
        raise ZeroDivisionError

    tracked = tracker(tmp_path, "crashed")
    engine = Engine(crash)
    tracked.attach(engine)
    with pytest.raises(ZeroDivisionError):
        engine.run([0])
    assert runs(tmp_path)["crashed"].info.status == "FAILED"
    after = tracker(tmp_path, "after")
    engine = Engine(lambda engine, batch: LOSS)
    after.attach(engine)
    engine.run([0])
    after.finish([], {})
    assert {name: run.info.status for name, run in runs(tmp_path).items()} == {"crashed": "FAILED", "after": "FINISHED"}


@pytest.mark.slow
def test_a_terminated_process_leaves_a_failed_run(tmp_path):
    script = (
        "import os, signal, sys; from ignite.engine import Engine; from cleft_bundle.handlers import RunTracker\n"
        "from cleft_bundle.checkpoints import RunIdentity\n"
        f"tracker = RunTracker('sqlite:///{tmp_path}/mlruns.db', RunIdentity('killed', ()), experiment_name='test',"
        " output_transform=lambda o: {'train_loss': 1.0})\n"
        f"engine = Engine(lambda e, b: e.state.iteration < 2 or os.kill(os.getpid(), {int(signal.SIGTERM)}))\n"
        "tracker.attach(engine); engine.run([0, 0])"
    )
    done = processes.run(["-c", script], tmp_path)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert runs(tmp_path)["killed"].info.status == "FAILED"
    assert runs(tmp_path)["killed"].data.metrics["train_loss"] == 1.0  # the step before is not lost


def test_an_empty_uri_switches_tracking_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracked = RunTracker("", RunIdentity("off", ()))
    engine = Engine(lambda engine, batch: LOSS)
    tracked.attach(engine)
    engine.run([0])
    tracked.finish([], {"auroc": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_places_that_mlflow_refuses_are_one_line(monkeypatch):
    with pytest.raises(BundleError, match="tracking_uri: MLflow no longer supports"):
        RunTracker("/tmp/somewhere", RunIdentity("run", ()))  # noqa: S108 - never written
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere.db")
    with pytest.raises(BundleError, match="differs from MLFLOW_TRACKING_URI"):
        RunTracker("sqlite:////here.db", RunIdentity("run", ()))


def test_run_names_differ():
    assert len({unique_run_name("train") for _ in range(100)}) == 100
