"""The name by which registered models find :mod:`cleft_bundle.inference.mlflow_model`: it stands in MLflow's files."""

from cleft_bundle.inference.mlflow_model import NAME, ServedClassifier, _load_pyfunc, log_classifier

__all__ = ["NAME", "ServedClassifier", "_load_pyfunc", "log_classifier"]
