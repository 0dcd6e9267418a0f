"""``cleft register``: the classifier in MLflow's registry."""

from __future__ import annotations

from cleft_bundle.packaging.mlflow_model import NAME, log_classifier


def register(
    model_path: str = "models/model.pt",
    report: str = "eval/report.json",
    tracking_uri: str = "sqlite:///eval/mlruns.db",
) -> str:
    """Register a classifier in MLflow under the name of the bundle, with the metrics of an evaluation.

    cleft register --report eval/report.json

    Args:
        model_path: the classifier, a model.pt or a finetuned.pt.
        report: report.json of the evaluation that justifies it.
        tracking_uri: of MLflow's runs and registry.

    Returns:
        the command that serves it.

    Raises:
        BundleError: the classifier and the report do not belong together, or cannot be read.
    """
    version = log_classifier(model_path, report, tracking_uri)
    return f"MLFLOW_TRACKING_URI={tracking_uri} mlflow models serve -m models:/{NAME}/{version} --env-manager local"
