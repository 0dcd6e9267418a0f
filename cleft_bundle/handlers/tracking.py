"""MLflow: what a run was, beside what MONAI's handler records of its course."""

from __future__ import annotations

import atexit
import json
import platform
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.config import executed_config, top_level_scalars
from cleft_bundle.data.datalists import fingerprint
from cleft_bundle.data.item import Item
from cleft_bundle.distributed import rank
from cleft_bundle.extras import require
from cleft_bundle.handlers.mlflow_handler import connect
from cleft_bundle.handlers.step_values import loss_and_scale
from cleft_bundle.networks.backbones import count_parameters
from cleft_bundle.networks.protocol import Network
from cleft_bundle.secrets import masked

PACKAGES = ("cleft_bundle", "monai", "torch", "transformers", "peft", "pydicom", "numpy")


def unique_run_name(kind: str) -> str:
    """Name a run by its kind, the time and a few random digits, so that no two runs ever share one."""
    return f"{kind}_{time.strftime('%Y%m%d_%H%M%S')}_{uuid.uuid4().hex[:6]}"


def package_versions() -> dict[str, str]:
    """Versions of the packages that a run's figures depend on, and of Python."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def run_parameters(network: Network, dataset_fingerprint: str) -> dict[str, Any]:
    """Parameters that MLflow keeps of a run.

    Args:
        network: the network, whose parameters are counted.
        dataset_fingerprint: of :func:`cleft_bundle.data.fingerprint`.

    Returns:
        every top-level scalar of the config, counts of parameters, versions of packages, the name of the PEFT method
        and the fingerprint.
    """
    settings = top_level_scalars()
    if "max_steps" in settings:  # which end the training in place of them
        settings.pop("epochs", None)
    versions = {f"version_{name}": number for name, number in package_versions().items()}
    counted = count_parameters(network)
    return {
        **settings,
        **counted,
        **versions,
        **network.facts,
        "dataset_fingerprint": dataset_fingerprint,
    }


def training_tracker(
    tracking_uri: str,
    experiment_name: str,
    identity: RunIdentity,
    network: Network,
    splits: Mapping[str, Sequence[Item]],
) -> RunTracker:
    """Build the tracker of a training: every step's loss, and :func:`run_parameters`.

    Args:
        tracking_uri: as of :class:`RunTracker`.
        experiment_name: MLflow's experiment.
        identity: the run.
        network: what is trained.
        splits: what :func:`cleft_bundle.data.make_splits` returns.
    """
    return _tracker(tracking_uri, experiment_name, identity, network, splits, output_transform=loss_and_scale)


def evaluation_tracker(
    tracking_uri: str,
    experiment_name: str,
    identity: RunIdentity,
    network: Network,
    splits: Mapping[str, Sequence[Item]],
) -> RunTracker:
    """Build the tracker of an evaluation, which keeps nothing of single batches; see :func:`training_tracker`."""
    return _tracker(tracking_uri, experiment_name, identity, network, splits, iteration_log=False)


def _tracker(
    tracking_uri: str,
    experiment_name: str,
    identity: RunIdentity,
    network: Network,
    splits: Mapping[str, Sequence[Item]],
    **kept: Any,
) -> RunTracker:
    described = run_parameters(network, fingerprint(splits))
    return RunTracker(tracking_uri, identity, experiment_name=experiment_name, experiment_param=described, **kept)


class MetricTracker:
    """MONAI's MLflow handler for an engine that is part of a run, such as its validation.

    Nothing that MLflow does or fails to do ends the run, see :class:`GuardedMLFlowHandler`.

    Args:
        tracking_uri: where MLflow keeps runs, such as ``sqlite:////data/mlruns.db``. Empty: nothing is tracked.
        identity: the run, which all its engines share.
        kwargs: further arguments of :class:`monai.handlers.MLFlowHandler`.

    Raises:
        BundleError: where the place is none that MLflow takes, see :func:`connect`.
    """

    def __init__(self, tracking_uri: str, identity: RunIdentity, **kwargs: Any) -> None:
        self.tracking_uri = masked(tracking_uri)  # to be shown
        self._place = (tracking_uri, kwargs.get("experiment_name"))
        self.identity = identity
        tracked = tracking_uri and rank() == 0
        self.handler = connect(tracking_uri, identity, **kwargs) if tracked else None

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        if self.handler is not None:
            self.handler.attach(engine)


class RunTracker(MetricTracker):
    """The MLflow handler of the engine that a run is about, and the run's end, whichever way it comes.

    A run that ends by an exception, by SIGTERM or by the end of the process without :meth:`finish` becomes FAILED, so
    that MONAI's handlers never attach a later run to it. Only SIGKILL leaves a run open. A run that MLflow could not
    open at its start is opened at the end of an epoch, or at its own end.

    Args:
        tracking_uri: where MLflow keeps runs, such as ``sqlite:////data/mlruns.db``. Empty: nothing is tracked.
        identity: the run; where it goes on from an earlier state, so does its run in MLflow.
        kwargs: further arguments of :class:`monai.handlers.MLFlowHandler`.

    Raises:
        BundleError: where the place is none that MLflow takes, see :func:`connect`.
    """

    def __init__(self, tracking_uri: str, identity: RunIdentity, **kwargs: Any) -> None:
        self.resume = identity.resumed is not None
        if self.resume:
            kwargs.pop("experiment_param", None)  # the run has its parameters already, and MLflow lets none change
        super().__init__(tracking_uri, identity, **kwargs)
        self._engine: Engine | None = None  # of the run, from its start to its end
        self._described = False

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        if self.handler is not None:
            super().attach(engine)
            engine.add_event_handler(Events.STARTED, self._open)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._reopen)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail_and_raise)

    def of_validation(self) -> MetricTracker:
        """A tracker of the same run for its validation engine."""
        uri, experiment = self._place
        named = {} if experiment is None else {"experiment_name": experiment}
        return MetricTracker(uri, self.identity, iteration_log=False, **named)

    def finish(self, artifacts: Sequence[str | Path], metrics: Mapping[str, float]) -> None:
        """Store the files and final metrics of a run and close it as FINISHED.

        Args:
            artifacts: files; those that do not exist are left out.
            metrics: figures of the best checkpoint, logged as ``best_<name>``.
        """
        if self._engine is None:
            return
        self._reopen()
        if self.handler is None or (run_id := self.run_id) is None:
            self._close("FINISHED")
            return
        named = {f"best_{name}": value for name, value in metrics.items()}
        self.handler.attempt(self.handler.client.log_values, run_id, named, now=True)
        self.keep(artifacts)
        self._close("FINISHED")

    def keep(self, artifacts: Sequence[str | Path]) -> None:
        """Store files of the open run; those that do not exist are left out."""
        if self.handler is None or (run_id := self.run_id) is None:
            return
        for path in artifacts:
            if Path(path).is_file():
                self.handler.attempt(self.handler.client.log_artifact, run_id, str(path))

    def record(self, artifacts: Sequence[str | Path]) -> None:
        """Store files as a run of their own, which no engine is part of.

        Args:
            artifacts: the files.
        """
        self.start()
        self.finish(artifacts, {})

    def start(self, run_id: str | None = None) -> str | None:
        """Open a run that no engine is part of.

        Args:
            run_id: MLflow's id of an earlier run that goes on; one that MLflow does not know is replaced. None opens a
                new one.

        Returns:
            the run's id, None where nothing is tracked.
        """
        if self.handler is None:
            return None
        if run_id is not None:
            self.handler.cur_run = self.handler.attempt(self._known, run_id)
        engine = Engine(lambda *_: None)
        self.handler.start(engine)
        self._open(engine)
        return self.run_id

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the open run, None where there is none."""
        return self.handler.cur_run.info.run_id if self.handler is not None and self.handler.cur_run else None

    def fail(self) -> None:
        """Close the run as FAILED, unless it is closed already."""
        self._close("FAILED")

    def _known(self, run_id: str) -> Any:
        """An earlier run; None where the store that it was in is gone."""
        assert self.handler is not None  # noqa: S101 - start() comes here only with a handler
        try:
            return self.handler.client.get_run(run_id)
        except require("mlflow.exceptions", "train").MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _open(self, engine: Engine) -> None:
        self._engine = engine
        atexit.register(self.fail)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        self._describe()

    def _reopen(self) -> None:
        if self.handler is not None and self.run_id is None and self._engine is not None:
            self.handler.start(self._engine)
            self._describe()

    def _describe(self) -> None:
        if self.handler is None or self._described or (run_id := self.run_id) is None:
            return
        self._described = True
        text = json.dumps(executed_config(), indent=2, default=str)
        self.handler.attempt(self.handler.client.log_text, run_id, text, "config.json")
        if self.resume:
            self.handler.attempt(self.handler.client.update_run, run_id, "RUNNING")

    def _fail_and_raise(self, engine: Engine, error: BaseException) -> None:
        self.fail()
        raise error

    def _close(self, status: str) -> None:
        self._engine = None
        atexit.unregister(self.fail)
        if self.handler is not None and (run_id := self.run_id) is not None:
            self.handler.flush(now=True)
            self.handler.attempt(self.handler.client.set_terminated, run_id, status, now=True)
            self.handler.cur_run = None
