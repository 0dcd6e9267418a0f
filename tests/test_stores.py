import os

import pytest
from monai.utils import optional_import

from cleft_bundle.stores import quiet_mlflow

telemetry, found = optional_import("mlflow.telemetry")
pytestmark = pytest.mark.skipif(not found, reason="needs the extra train")


@pytest.mark.parametrize(("said", "goes_on"), [(None, False), ("true", False), ("false", True)])
def test_mlflow_tells_its_makers_nothing_unless_the_user_says_so(said, goes_on, monkeypatch):
    monkeypatch.setattr("mlflow.telemetry.utils._IS_IN_CI_ENV_OR_TESTING", False)  # where it has none by itself
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    telemetry.set_telemetry_client()  # as an import of MLflow does
    assert telemetry.get_telemetry_client() is not None
    if said is None:
        monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    else:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", said)
    try:
        assert quiet_mlflow().__name__ == "mlflow"
        assert (telemetry.get_telemetry_client() is not None) == goes_on
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == (said or "true")
    finally:
        monkeypatch.undo()
        telemetry.set_telemetry_client()
