"""The deployable classifier as a model of MLflow: ``mlflow models predict`` and ``serve`` take it as it is.

MLflow loads it by :func:`_load_pyfunc`, from the bare ``model.pt`` or ``finetuned.pt``: no pickled code.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cleft_bundle import __version__
from cleft_bundle.checkpoints.classifier_file import load_deployed
from cleft_bundle.errors import BundleError
from cleft_bundle.extras import require
from cleft_bundle.files import read_object
from cleft_bundle.inference.scorer import Scorer
from cleft_bundle.names import column, mlflow_name
from cleft_bundle.networks import DeployedClassifier
from cleft_bundle.packaging.export import describe
from cleft_bundle.secrets import masked
from cleft_bundle.stores import quiet_mlflow, sqlite_file

NAME = "cleft_bundle"
_LOADER = "cleft_bundle.packaging.mlflow_model"


class ServedClassifier:
    """Score radiographs that come as rows of a table.

    Args:
        classifier: in evaluation mode.
    """

    def __init__(self, classifier: DeployedClassifier) -> None:
        self.scorer = Scorer(classifier)

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Score each row.

        Args:
            model_input: columns ``image``, bytes of a file (DICOM, PNG, JPEG, TIFF; base64 in JSON), and ``path``, a
                file on the machine that serves. Each row has one of them.
            params: not used.

        Returns:
            the rows in their order: a column per class with its probability or None, and ``error``, the reason why an
            image has none, else empty.
        """
        names = _columns(self.scorer.class_names)
        with tempfile.TemporaryDirectory() as folder:
            records = enumerate(model_input.to_dict("records"))
            items = [_item(row, Path(folder, str(number))) for number, row in records]
            found = self.scorer.score(item for item in items if "image" in item)
        scored = (
            {"error": error} if error else dict(zip(names, row, strict=True))
            for row, error in zip(found.scores.tolist(), found.errors, strict=True)
        )
        rows = [item if "error" in item else next(scored) for item in items]
        table = pd.DataFrame(rows, columns=[*names, "error"])
        table = table.astype(dict.fromkeys(names, np.float64)).fillna({"error": ""})
        whole = table.notna()  # JSON knows null, and no NaN
        return table if whole.all(axis=None) else table.astype(object).where(whole, None)


def log_classifier(
    model_path: str | Path, report_path: str | Path, tracking_uri: str, experiment_name: str = NAME
) -> str:
    """Log a classifier as a run of MLflow with signature, example and metrics, and register it as ``cleft_bundle``.

    Args:
        model_path: the classifier.
        report_path: the ``report.json`` of the evaluation that justifies it.
        tracking_uri: of runs and registry, such as ``sqlite:///eval/mlruns.db``.
        experiment_name: of the run.

    Returns:
        the version that it has in the registry.

    Raises:
        BundleError: where there is no report, it is of other classes than the classifier, or mlflow is missing.
    """
    mlflow = quiet_mlflow()
    classifier = load_deployed(model_path)
    report = _read_report(report_path, classifier)
    identity = describe(classifier)
    example = pd.DataFrame({"image": [_example_png()]})
    with _store(tracking_uri, experiment_name), mlflow.start_run(run_name=f"register_{identity['fingerprint'][:12]}"):
        mlflow.log_params({f"evaluated_{key}": masked(str(value)) for key, value in report["dataset"].items()})
        for name, estimate in report["metrics"].items():
            metric, slash, of_class = name.partition("/")  # a class may be called anything: it stands last
            estimates = {name: estimate["value"]}
            estimates |= {f"{metric}_{end}{slash}{of_class}": estimate[end] for end in ("low", "high")}
            mlflow.log_metrics({mlflow_name(key): value for key, value in estimates.items() if value is not None})
        logged = mlflow.pyfunc.log_model(
            name="classifier",
            loader_module=_LOADER,
            data_path=str(model_path),
            signature=_signature(classifier.class_names),
            input_example=example,
            pip_requirements=[f"cleft_bundle=={__version__}"],
            metadata={key: identity[key] for key in ("class_names", "task", "fingerprint")},
            registered_model_name=NAME,
        )
    return str(logged.registered_model_version)


@contextmanager
def _store(tracking_uri: str, experiment_name: str) -> Iterator[None]:
    """Point MLflow to an experiment of a store, and leave the process and its environment as they were."""
    mlflow = quiet_mlflow()
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri)
    try:
        _create_experiment(tracking_uri, experiment_name)
        mlflow.set_experiment(experiment_name)
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _create_experiment(tracking_uri: str, name: str) -> None:
    """Put the artifacts of a new experiment beside its database, where MONAI's handler puts those of training."""
    mlflow = quiet_mlflow()
    file = sqlite_file(tracking_uri)
    if file is None:
        return
    folder = file.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    if mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, artifact_location=(folder / "mlruns").as_uri())


def _load_pyfunc(data_path: str) -> ServedClassifier:
    """What MLflow calls, under this name."""
    return ServedClassifier(load_deployed(data_path))


def _item(row: Mapping[Any, Any], file: Path) -> dict[str, Any]:
    """What is to be scored for one row of a request, or why nothing is."""
    content, path = row.get("image"), row.get("path")
    if isinstance(content, bytes) and content:
        file.write_bytes(content)
        return {"image": str(file)}
    if isinstance(path, str) and path:
        return {"image": path}
    return {"error": "the row has neither bytes in 'image' nor a 'path'"}


def _columns(class_names: Sequence[str]) -> list[str]:
    return [column(name, ["error", "path"]) for name in class_names]


def _signature(class_names: list[str]) -> Any:
    models, types = require("mlflow.models", "train"), require("mlflow.types", "train")
    spec = types.ColSpec
    inputs = [spec("binary", "image", required=False), spec("string", "path", required=False)]
    outputs = [*(spec("double", name) for name in _columns(class_names)), spec("string", "error")]
    return models.ModelSignature(types.Schema(inputs), types.Schema(outputs))


def _read_report(path: str | Path, classifier: DeployedClassifier) -> dict[str, Any]:
    report = read_object(path, f"report {path}", ": evaluate the checkpoint, see docs/evaluation.md")
    classes = sorted(report["prompts"])
    if classes != sorted(classifier.class_names):
        raise BundleError(f"report {path} is of other classes ({', '.join(classes)}) than the classifier")
    return report


def _example_png() -> bytes:
    """A picture that shows no patient."""
    grey = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()
