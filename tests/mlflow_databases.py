"""MLflow's tables, made once: a new database takes more than a second of migrations, and most runs begin one."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any


def migrate_once(template: str) -> None:
    """Let databases of this process that are new and SQLite's be copies of one that MLflow has migrated.

    Args:
        template: file of that database; the first new one is copied there. Processes may share it.
    """
    try:
        from mlflow.store.db import utils  # noqa: PLC0415 - only tests of runs wait for it
    except ImportError:  # needs the extra train
        return
    migrate = utils._initialize_tables

    def initialize(engine: Any) -> None:
        file = engine.url.database
        if engine.dialect.name != "sqlite" or file in (None, "", ":memory:") or not _is_empty(file):
            migrate(engine)
        elif Path(template).is_file():
            _copy(template, file)
        else:
            migrate(engine)
            with tempfile.TemporaryDirectory(dir=Path(template).parent) as folder:
                _copy(file, f"{folder}/copy.db")
                os.replace(f"{folder}/copy.db", template)

    utils._initialize_tables = initialize


def _is_empty(file: str) -> bool:
    with closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def _copy(source: str, target: str) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)
