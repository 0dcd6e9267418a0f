"""MLflow: what a run was, beside what MONAI's handler records of its course."""

from __future__ import annotations

import atexit
import json
import os
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

import torch
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from cleft_bundle.checkpoints.run_identity import RunIdentity
from cleft_bundle.config import executed_config, top_level_scalars
from cleft_bundle.distributed import rank
from cleft_bundle.errors import BundleError
from cleft_bundle.extras import require
from cleft_bundle.networks import CLEFT, DualEncoder, ImageClassifier, TrainableClassifier, ZeroShotClassifier
from cleft_bundle.networks.backbones import count_parameters

#: MLflow's tag of the run's identity.
IDENTITY = "cleft_run"
PACKAGES = ("cleft_bundle", "monai", "torch", "transformers", "peft", "pydicom", "numpy")


def unique_run_name(kind: str) -> str:
    """Name a run by its kind, the time and a few random digits, so that no two runs ever share one."""
    return f"{kind}_{time.strftime('%Y%m%d_%H%M%S')}_{uuid.uuid4().hex[:6]}"


def package_versions() -> dict[str, str]:
    """Versions of the packages that a run's figures depend on, and of Python."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def run_parameters(
    network: CLEFT | DualEncoder | ImageClassifier | TrainableClassifier | ZeroShotClassifier, dataset_fingerprint: str
) -> dict[str, Any]:
    """What MLflow keeps of a run as parameters.

    Args:
        network: the network, whose parameters are counted.
        dataset_fingerprint: of :func:`cleft_bundle.data.fingerprint`.

    Returns:
        every top-level scalar of the config, counts of parameters, versions of packages, the name of the PEFT method
        and the fingerprint.
    """
    versions = {f"version_{name}": number for name, number in package_versions().items()}
    counted = count_parameters(network)
    peft = {"peft": network.text_encoder.peft.name} if isinstance(network, CLEFT) else {}
    return {
        **top_level_scalars(),
        **counted,
        **versions,
        **peft,
        "dataset_fingerprint": dataset_fingerprint,
    }


def loss_and_scale(output: dict[str, Any]) -> dict[str, float]:
    """What MLflow keeps of every training step, from the trainer's output: the loss, and what embeddings carry."""
    kept = {"train_loss": float(output["loss"])}
    if not isinstance(output["pred"], torch.Tensor):  # logits of a classification carry no scale
        kept["logit_scale"] = float(output["pred"][2].detach())
    return kept


class RunTracker:
    """MONAI's MLflow handler for the engine that a run is about, and the run's end, whichever way it comes.

    A run that ends by an exception, by SIGTERM or by the end of the process without :meth:`finish` becomes FAILED, so
    that MONAI's handlers never attach a later run to it. Only SIGKILL leaves a run open.

    Args:
        tracking_uri: where MLflow keeps runs, such as ``sqlite:////data/mlruns.db``. Empty: nothing is tracked.
        identity: the run; where it goes on from an earlier state, so does its run in MLflow.
        kwargs: further arguments of :class:`monai.handlers.MLFlowHandler`.

    Raises:
        BundleError: where the environment variable MLFLOW_TRACKING_URI names another place, which MONAI would prefer,
            or the place is a plain path or ``file://``, which MLflow no longer takes.
    """

    def __init__(self, tracking_uri: str, identity: RunIdentity, **kwargs: Any) -> None:
        self.tracking_uri = tracking_uri
        self.identity = identity
        self.run_name = identity.name
        self.resume = identity.resumed is not None
        self.handler: MLFlowHandler | None = None
        if not tracking_uri or rank() > 0:
            return
        if self.resume:
            kwargs.pop("experiment_param", None)  # the run has its parameters already, and MLflow lets none change
        require("mlflow", "train")
        environment = os.environ.get("MLFLOW_TRACKING_URI")
        if environment and environment != tracking_uri:
            raise BundleError(f"tracking_uri: {tracking_uri} differs from MLFLOW_TRACKING_URI={environment}; unset one")
        if tracking_uri.startswith("sqlite:///"):
            Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            self.handler = MLFlowHandler(tracking_uri=tracking_uri, run_name=identity.name, **kwargs)
        except ValueError as error:
            raise BundleError(f"tracking_uri: {' '.join(str(error).split())}") from error

    def attach(self, engine: Engine) -> None:
        """Register with an engine."""
        if self.handler is not None:
            self.handler.attach(engine)
            engine.add_event_handler(Events.STARTED, self._open)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail_and_raise)

    def finish(self, artifacts: Sequence[str | Path], metrics: Mapping[str, float]) -> None:
        """Store the files and final metrics of a run and close it as FINISHED.

        Args:
            artifacts: files; those that do not exist are left out.
            metrics: figures of the best checkpoint, logged as ``best_<name>``.
        """
        if self.handler is None or self.handler.cur_run is None:
            return
        run_id = self.handler.cur_run.info.run_id
        for name, value in metrics.items():
            self.handler.client.log_metric(run_id, f"best_{name}", value)
        for path in artifacts:
            if Path(path).is_file():
                self.handler.client.log_artifact(run_id, str(path))
        self._close("FINISHED")

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
            run_id: MLflow's id of an earlier run that goes on. None opens a new one.

        Returns:
            the run's id, None where nothing is tracked.

        Raises:
            MlflowException: where MLflow does not know the earlier run.
        """
        if self.handler is None:
            return None
        if run_id is not None:
            self.handler.cur_run = self.handler.client.get_run(run_id)
        self.handler.start(Engine(lambda *_: None))
        self._open()
        return self.run_id

    def reopen(self) -> None:
        """Open the run of a training that had come to its end, to close it anew by :meth:`finish`."""
        if self.handler is not None:
            client = self.handler.client
            experiment = client.get_experiment_by_name(self.handler.experiment_name)
            wanted = f"tags.{IDENTITY} = '{self.identity.id}'"
            found = client.search_runs([experiment.experiment_id], wanted) if experiment else []
            self.start(found[0].info.run_id if found else None)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the open run, None where there is none."""
        return self.handler.cur_run.info.run_id if self.handler is not None and self.handler.cur_run else None

    def fail(self) -> None:
        """Close the run as FAILED, unless it is closed already."""
        self._close("FAILED")

    def _open(self) -> None:
        assert self.handler is not None  # noqa: S101 - attach() registers this method only with a handler
        text = json.dumps(executed_config(), indent=2, default=str)
        run_id = self.handler.cur_run.info.run_id
        self.handler.client.log_text(run_id, text, "config.json")
        self.handler.client.set_tag(run_id, IDENTITY, self.identity.id)
        if self.resume:
            self.handler.client.update_run(run_id, status="RUNNING")
        atexit.register(self.fail)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def _fail_and_raise(self, engine: Engine, error: BaseException) -> None:
        self.fail()
        raise error

    def _close(self, status: str) -> None:
        if self.handler is not None and self.handler.cur_run is not None:
            self.handler.client.set_terminated(self.handler.cur_run.info.run_id, status)
            self.handler.cur_run = None
            atexit.unregister(self.fail)
