"""Register a classifier in MLflow under the name of the bundle, with the metrics of an evaluation.

python scripts/register_model.py --report eval/report.json
"""

from __future__ import annotations

import sys

import fire

from cleft_bundle.errors import BundleError
from cleft_bundle.packaging.mlflow_model import NAME, log_classifier


def main(
    model_path: str = "models/model.pt",
    report: str = "eval/report.json",
    tracking_uri: str = "sqlite:///eval/mlruns.db",
) -> None:
    """Log and register a classifier, and print how it is served.

    Args:
        model_path: the classifier, a model.pt or a finetuned.pt.
        report: report.json of the evaluation that justifies it.
        tracking_uri: of MLflow's runs and registry.
    """
    version = log_classifier(model_path, report, tracking_uri)
    print(f"MLFLOW_TRACKING_URI={tracking_uri} mlflow models serve -m models:/{NAME}/{version} --env-manager local")


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
