"""The name by which models registered before 0.9.0 find their loader: it stands in their files."""

from cleft_bundle.packaging.mlflow_model import _load_pyfunc

__all__ = ["_load_pyfunc"]
