import json
import logging
import shutil
import time
from types import SimpleNamespace

import mlflow
import pytest
from ignite.engine import Engine, Events
from mlflow.utils.validation import _validate_metric_name
from monai.engines import SupervisedEvaluator
from torch import nn

from cleft_bundle.best_effort import begin_run
from cleft_bundle.checkpoints import RunIdentity
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import MetricTracker, RunTracker
from cleft_bundle.handlers.mlflow_handler import PATIENCE, GuardedMLFlowHandler
from cleft_bundle.names import mlflow_name
from cleft_bundle.stores import sqlite_uri

AWKWARD = [
    "pneumonia (viral)",
    "a/b",
    "a//b",
    "..",
    "=1+1",
    "x|y,z;",
    "'q\"",
    " blank ",
    "two\nlines",
    "Ödem 😀",
    "n" * 400,
]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """MLflow's tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "runs.db"
    mlflow.MlflowClient(sqlite_uri(file)).get_experiment("0")
    return file


@pytest.fixture
def uri(empty_database, tmp_path):
    shutil.copy(empty_database, tmp_path / "runs.db")
    return sqlite_uri(tmp_path / "runs.db")


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for variable in PATIENCE:
        monkeypatch.delenv(variable, raising=False)
    GuardedMLFlowHandler._resting.clear()
    begin_run()


def trainer(metrics):
    engine = Engine(lambda engine, batch: {"loss": 1.0})
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(metrics))
    return engine


def tracker(uri, **kwargs):
    loss = {"output_transform": lambda output: {"loss": output["loss"]}}
    return RunTracker(uri, RunIdentity("run", ()), experiment_name="test", **loss, **kwargs)


def the_run(uri):
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    return client, run


def test_any_class_name_is_a_metric_and_the_map_tells_which(uri):
    estimates = {f"auroc/{name}": number / 100 for number, name in enumerate(AWKWARD)}
    tracked = tracker(uri, experiment_param={"key (odd)": "x" * 7000, "tracking_uri": "http://me:word@host/x"})
    engine = trainer(estimates)
    tracked.attach(engine)
    engine.run([0])
    tracked.finish([], {"auroc/pneumonia (viral)": 0.5})
    _, run = the_run(uri)
    names = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/names.json"))
    told = {names.get(key, key): value for key, value in run.data.metrics.items()}
    assert {key: told[key] for key in estimates} == estimates
    assert told["best_auroc/pneumonia (viral)"] == 0.5
    assert run.data.metrics["auroc/pneumonia _x0028_viral_x0029_"] == 0.0
    assert run.data.params["tracking_uri"] == "http://me:***@host/x"
    assert len(run.data.params[mlflow_name("key (odd)")]) == 6000
    assert run.data.params[mlflow_name("key (odd)")].endswith("(7000 characters in all)")


def test_names_that_mlflow_takes_are_kept():
    for name in ("auroc/no finding", "best_auroc_macro", "lr_group_0", "a.b-c"):
        assert mlflow_name(name) == name
        _validate_metric_name(name)


def test_a_client_that_always_raises_ends_nothing_and_is_told_once(uri, tmp_path, monkeypatch, caplog):
    def fail(self, *args, **kwargs):
        raise OSError("no space left, http://me:word@host")

    for name in dir(mlflow.MlflowClient):
        if not name.startswith("_"):
            monkeypatch.setattr(mlflow.MlflowClient, name, fail)
    engine, tracked = trainer({"auroc": 1.0}), tracker(uri)
    tracked.attach(engine)
    with caplog.at_level(logging.WARNING, "cleft_bundle"):
        engine.run([0, 0, 0], max_epochs=3)
        tracked.finish([tmp_path / "runs.db"], {"auroc": 1.0})
    assert engine.state.iteration == 9
    (told,) = [record.getMessage() for record in caplog.records if record.name == "cleft_bundle.best_effort"]
    assert told.startswith("MLflow: OSError: no space left, http://me:***@host")


def test_a_run_that_could_not_be_opened_at_its_start_is_opened_later(uri, monkeypatch):
    monkeypatch.setattr("cleft_bundle.handlers.mlflow_handler.REST", 0.0)
    tracked, engine = tracker(uri), trainer({"auroc": 0.9})
    tracked.attach(engine)
    working = mlflow.MlflowClient.get_experiment_by_name
    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", lambda *_: 1 / 0)
    engine.add_event_handler(
        Events.EPOCH_STARTED(once=2),
        lambda: monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", working),
    )
    engine.run([0, 0], max_epochs=3)
    tracked.finish([], {"auroc": 0.9})
    client, run = the_run(uri)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["best_auroc"] == 0.9
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "auroc")] == [3]
    assert "config.json" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_after_a_failure_mlflow_is_left_alone_for_a_while(uri, monkeypatch):
    now, calls = [0.0], []
    handler = tracker(uri).handler
    clock = SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr("cleft_bundle.handlers.mlflow_handler.time", clock)

    def slow():
        calls.append(now[0])
        now[0] += 10
        raise TimeoutError

    for _ in range(50):
        handler.attempt(slow)
        now[0] += 10
    assert calls == [0, 210, 420]


def test_an_evaluator_logs_behind_whatever_writes_weights(uri):
    order = []
    tracked = MetricTracker(uri, RunIdentity("run", ()), experiment_name="test", iteration_log=False)
    tracked.handler.epoch_logger = lambda engine: order.append("tracker")

    class Weights:
        def attach(self, engine):
            engine.add_event_handler(Events.COMPLETED, lambda: order.append("weights"))

    SupervisedEvaluator(
        device="cpu", val_data_loader=[{"image": 0, "label": 0}], network=nn.Identity(),
        iteration_update=lambda engine, batch: {}, val_handlers=[Weights(), tracked],
    ).run()  # fmt: skip
    assert order == ["weights", "tracker"]


@pytest.mark.parametrize(
    "uri", ["nowhere://x", "postgresql+nodriver://me:word@host/x", "here/plain", "sqlite:///{}/x.db"]
)
def test_what_is_no_place_is_an_error_at_the_start(uri, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="tracking_uri: ") as caught:
        tracker(uri.format(tmp_path / "file"))
    assert "word" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_waiting_is_bounded_unless_the_environment_says_how_long(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    tracker(uri)
    assert mlflow.environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 77
    assert mlflow.environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 2


@pytest.mark.parametrize("name", ["a?b", "50%41", "c#d", "e f", "[g]", "'h'", "ü"])
def test_a_database_and_its_artifacts_lie_where_they_were_asked_for(name, empty_database, tmp_path):
    (tmp_path / name).mkdir()
    shutil.copy(empty_database, tmp_path / name / "runs.db")
    tracker(sqlite_uri(tmp_path / name / "runs.db")).record([])
    assert (tmp_path / name / "runs.db").read_bytes() != empty_database.read_bytes()
    assert len(list((tmp_path / name / "mlruns").rglob("config.json"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
