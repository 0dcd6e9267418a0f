"""MONAI's MLflow handler, of which no failure reaches the engine and no chosen name MLflow's rules."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import MLFlowHandler

from cleft_bundle.best_effort import best_effort
from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.extras import require
from cleft_bundle.handlers.step_values import Value, numbers
from cleft_bundle.names import mlflow_name
from cleft_bundle.secrets import masked
from cleft_bundle.stores import quiet_mlflow, sqlite_file

NAMES = "names.json"
#: MLflow's tag of the run's identity.
IDENTITY = "cleft_run"
#: Environment variable: the id of MLflow's run that the runs of this process are children of.
PARENT = "CLEFT_BUNDLE_PARENT_RUN"
#: How long MLflow may wait for a server that does not answer, unless the environment says so: its own 120 s and 7 tries
#: would stop a training for a quarter of an hour at every step.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "120",
}
REST = 20.0  # times what a failed call took: so long no other is made, so that failures cost a run at most 5 %
PAUSE = 10.0  # seconds of a training between two batches of metrics
_MOST = 1000  # metrics of a batch: mlflow.utils.validation.MAX_METRICS_PER_BATCH
_REMEMBERED = 100_000  # steps whose metrics wait for a server that is away
_LONGEST = 6000  # characters of a parameter: mlflow.utils.validation.MAX_PARAM_VAL_LENGTH


class NamingClient:
    """An MLflow client that maps names by :func:`cleft_bundle.names.mlflow_name` and masks credentials.

    Names that had to be mapped stand in the run's artifact ``names.json``, MLflow's name to the one that was given.

    Args:
        client: an ``mlflow.MlflowClient``, which does all the rest.
    """

    _names: ClassVar[dict[str, dict[str, str]]] = {}  # by the run's id: a trainer and its validator share a run

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        """Attribute of the client, for all that is not changed here."""
        return getattr(self.client, name)

    def log_batch(
        self, run_id: str, metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = ()
    ) -> None:
        """Log metrics, parameters and tags of MLflow's entities, however many; long parameters are cut."""
        entities = require("mlflow.entities", "train")
        known = self._names.setdefault(run_id, {})
        before = len(known)
        self.client.log_batch(
            run_id,
            [entities.Metric(_mapped(m.key, known), m.value, m.timestamp, m.step) for m in metrics],
            [entities.Param(_mapped(p.key, known), _cut(masked(str(p.value)))) for p in params],
            [entities.RunTag(_mapped(t.key, known), masked(str(t.value))) for t in tags],
        )
        if len(known) > before:
            self.client.log_text(run_id, json.dumps(known, indent=1), NAMES)

    def log_values(self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, Any] | None = None) -> None:
        """Log metrics and parameters by their names."""
        entities, now = require("mlflow.entities", "train"), int(time.time() * 1000)
        self.log_batch(
            run_id,
            [entities.Metric(name, value, now, 0) for name, value in metrics.items()],
            [entities.Param(name, str(value)) for name, value in (params or {}).items()],
        )

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Log a text as an artifact."""
        self.client.log_text(run_id, masked(text), artifact_file)


class GuardedMLFlowHandler(MLFlowHandler):
    """MONAI's MLflow handler for runs that go on whether MLflow does or not.

    A failure is told once. After one MLflow is left alone for a while in proportion to what it has cost. Of an
    evaluator the metrics are logged when it has ended, behind whatever writes weights when an epoch has.

    Args:
        tracking_uri: where MLflow keeps runs.
        identity: the run, by which MLflow's run is found: names need not be unique.
        kwargs: further arguments of :class:`monai.handlers.MLFlowHandler`.
    """

    _resting: ClassVar[dict[str, float]] = {}  # by tracking_uri: the time until which it is left alone

    def __init__(self, tracking_uri: str, identity: RunIdentity, **kwargs: Any) -> None:
        if (file := sqlite_file(tracking_uri)) is not None:
            kwargs.setdefault("artifact_location", (file.parent.absolute() / "mlruns").as_uri())
        super().__init__(tracking_uri=tracking_uri, run_name=masked(identity.name), **kwargs)
        self.identity = identity
        self.cur_run: Any = None
        self.client: Any = NamingClient(self.client)
        self._uri = tracking_uri
        self._kept: list[tuple[int, int, dict[str, Value]]] = []  # step, time in milliseconds, metrics
        self._logged = time.monotonic()

    def attempt(self, action: Callable[..., Any], *args: Any, now: bool = False) -> Any:
        """Call a function that needs MLflow, unless that is resting.

        Args:
            action: what is called.
            args: its arguments.
            now: do not wait until MLflow has rested.

        Returns:
            what it returns, None where it fails or is not called.
        """
        begun = time.monotonic()
        if not now and begun < self._resting.get(self._uri, begun):
            return None
        with best_effort("MLflow"):
            result = action(*args)
            self._resting.pop(self._uri, None)
            return result
        self._resting[self._uri] = time.monotonic() + REST * (time.monotonic() - begun)
        return None

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        super().attach(engine)
        if isinstance(engine, Evaluator) and engine.has_event_handler(self.epoch_completed, Events.EPOCH_COMPLETED):
            engine.remove_event_handler(self.epoch_completed, Events.EPOCH_COMPLETED)
            engine.add_event_handler(Events.COMPLETED, self.epoch_completed)

    def start(self, engine: Engine) -> None:
        """Open MLflow's run of this identity, or go on with it."""
        self.attempt(self._start, engine)

    def iteration_completed(self, engine: Engine) -> None:
        """Keep a step's metrics, and log them with those of others: no step waits for MLflow or for the device."""
        metrics = self.output_transform(engine.state.output)
        if metrics is None:
            return
        kept: dict[str, Value] = dict(metrics) if isinstance(metrics, dict) else {self.tag_name: metrics}
        for name in self.optimizer_param_names if hasattr(engine, "optimizer") else ():
            groups = enumerate(engine.optimizer.param_groups)
            kept |= {f"{name}_group_{number}": group[name] for number, group in groups}
        self._kept.append((engine.state.iteration, int(time.time() * 1000), kept))
        del self._kept[:-_REMEMBERED]
        if time.monotonic() - self._logged >= PAUSE:
            self.flush()

    def flush(self, now: bool = False) -> None:
        """Log what is kept of steps; what MLflow does not take is kept on.

        Args:
            now: do not wait until MLflow has rested.
        """
        self._logged = time.monotonic()
        if self.cur_run is not None and self._kept:
            self.attempt(self._log_kept, now=now)

    def _log_kept(self) -> None:
        entities = require("mlflow.entities", "train")
        while self._kept:
            part = self._kept[: max(1, _MOST // max(len(metrics) for _, _, metrics in self._kept))]
            rows = [(name, value, when, step) for step, when, metrics in part for name, value in metrics.items()]
            read = numbers([value for _, value, _, _ in rows])
            batch = [entities.Metric(row[0], value, row[2], row[3]) for row, value in zip(rows, read, strict=True)]
            self.client.log_batch(self.cur_run.info.run_id, batch)
            del self._kept[: len(part)]

    def epoch_completed(self, engine: Engine) -> None:
        """Log an epoch, and what is kept of its steps."""
        self.flush()
        if self.cur_run is not None:
            self.attempt(super().epoch_completed, engine)

    def complete(self) -> None:
        """Log what is kept of steps, and the artifacts."""
        self.flush()
        self.attempt(super().complete)

    def _start(self, engine: Engine) -> None:
        if self.cur_run is None:
            self._set_experiment()
            place = self.experiment.experiment_id
            found = self.client.search_runs([place], f"tags.{IDENTITY} = '{self.identity.id}'")
            tags = {IDENTITY: self.identity.id}
            if parent := os.environ.get(PARENT):
                tags["mlflow.parentRunId"] = parent
            self.cur_run = found[0] if found else self.client.create_run(place, tags=tags, run_name=self.run_name)
        super().start(engine)


def connect(tracking_uri: str, identity: RunIdentity, **kwargs: Any) -> GuardedMLFlowHandler | None:
    """Make a handler of a run.

    Args:
        tracking_uri: where MLflow keeps runs.
        identity: the run.
        kwargs: further arguments of :class:`monai.handlers.MLFlowHandler`.

    Returns:
        the handler; None, and a warning, where MLflow cannot be reached now.

    Raises:
        BundleError: where that is no place that MLflow takes, the environment variable MLFLOW_TRACKING_URI names
            another one, which MONAI would prefer, or mlflow is not installed.
    """
    quiet_mlflow()
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    if environment and environment != tracking_uri:
        shown = masked(f"tracking_uri: {tracking_uri} differs from MLFLOW_TRACKING_URI={environment}")
        raise BundleError(f"{shown}; unset one")
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    names = {key: masked(str(value)) for key, value in kwargs.items() if key == "experiment_name"}
    wrong: Exception | None = None
    with best_effort("MLflow"):
        try:
            with _opened_sqlite(tracking_uri):
                return GuardedMLFlowHandler(tracking_uri, identity, **{**kwargs, **names})
        except Exception as error:
            if not _is_wrong(error):
                raise
            wrong = error
    if wrong is not None:
        raise BundleError(masked(f"tracking_uri: {one_line(wrong, None)}")) from None
    return None


@contextmanager
def _opened_sqlite(uri: str) -> Iterator[None]:
    """Open an SQLite file in MLflow's place, which would try for minutes where it cannot.

    MLflow makes the folder that the URI's text names, which is none where characters are quoted: it is removed again.
    """
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=5)) as database:
        database.execute("PRAGMA schema_version")
    quoted = Path(uri.removeprefix("sqlite:///")).parent
    stray = [folder for folder in (quoted, *quoted.parents) if not folder.exists()]
    yield
    for folder in stray:
        with suppress(OSError):
            folder.rmdir()


def _is_wrong(error: Exception) -> bool:
    """Whether an error says that a place can never be one, not that it is away for now."""
    kinds = (BundleError, ValueError, ImportError, PermissionError, NotADirectoryError, FileExistsError)
    arguments = require("sqlalchemy.exc", "train").ArgumentError
    code = getattr(error, "error_code", None)  # of MLflow's exceptions
    return isinstance(error, (*kinds, arguments)) or code == "INVALID_PARAMETER_VALUE" or "unable to open" in str(error)


def _mapped(name: str, known: dict[str, str]) -> str:
    mapped = mlflow_name(masked(name))
    if mapped != name:
        known[mapped] = masked(name)
    return mapped


def _cut(value: str) -> str:
    if len(value) <= _LONGEST:
        return value
    end = f" … ({len(value)} characters in all)"
    return value[: _LONGEST - len(end)] + end
