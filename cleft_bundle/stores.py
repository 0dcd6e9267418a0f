"""MLflow, and its stores of runs: SQLite's files as URIs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from cleft_bundle.errors import BundleError
from cleft_bundle.extras import require

_SCHEME = "sqlite:///"
_NO_TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"


def quiet_mlflow() -> Any:
    """The package, whose telemetry is off unless ``MLFLOW_DISABLE_TELEMETRY`` is ``false``.

    What a hospital runs is told to nobody. And where its makers cannot be reached, MLflow takes a variable out of the
    environment while others may read that, which has cost a run its record.

    Raises:
        BundleError: where it is not installed.
    """
    package = require("mlflow", "train")
    if os.environ.setdefault(_NO_TELEMETRY, "true").lower() != "false":
        begin_anew, found = optional_import("mlflow.telemetry", name="set_telemetry_client")
        if found:
            begin_anew()  # MONAI has imported MLflow before, and with it the telemetry has begun
    return package


def tracking_uri(output_dir: str | Path) -> str:
    """Store in which MLflow keeps runs: that of MLFLOW_TRACKING_URI, or ``mlruns.db`` in the folder of the outputs."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return sqlite_uri(f"{output_dir}/mlruns.db") if named is None else named


def sqlite_uri(path: str | Path) -> str:
    """The URI of an SQLite file; ``?`` and ``%`` in its path, which mean something in URIs, are quoted.

    Args:
        path: the file; its folder need not exist.

    Raises:
        BundleError: where the installed SQLAlchemy cannot name such a file; 2.1 can.
    """
    path = str(path)
    if not set(path) & set("?%"):
        return _SCHEME + path
    engine = require("sqlalchemy.engine", "train")
    uri = str(engine.URL.create("sqlite", database=path).render_as_string(hide_password=False))
    if engine.make_url(uri).database != path:
        raise BundleError(f"{path}: this SQLAlchemy takes no ? and no % in a path: choose another output_dir")
    return uri


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite URI, None where the URI is of something else."""
    if not uri.startswith(_SCHEME):
        return None
    database = require("sqlalchemy.engine", "train").make_url(uri).database
    return Path(database) if database else None
