import sqlite3

import pytest

from tests.mlflow_databases import migrate_once

mlflow = pytest.importorskip("mlflow", reason="needs the extra train")


def begin(path):
    """Let MLflow begin a database, and give its schema and what its tables hold."""
    client = mlflow.MlflowClient(f"sqlite:///{path}")
    client.create_experiment(path.stem)
    with sqlite3.connect(path) as database:
        schema = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        revision = database.execute("SELECT * FROM alembic_version").fetchall()
        names = database.execute("SELECT name FROM experiments ORDER BY experiment_id").fetchall()
    return schema, revision, [name for (name,) in names]


def test_a_copied_database_is_a_migrated_one_without_rows(tmp_path, monkeypatch):
    utils = pytest.importorskip("mlflow.store.db.utils")
    migrated = []

    def initialize(engine):
        migrated.append(engine)
        utils.InitialBase.metadata.create_all(engine)
        utils._upgrade_db(engine)

    monkeypatch.setattr(utils, "_initialize_tables", initialize)
    migrate_once(str(tmp_path / "template.db"))
    first, second = begin(tmp_path / "first.db"), begin(tmp_path / "second.db")
    assert len(migrated) == 1
    assert first[:2] == second[:2]
    assert len(first[0]) > 20
    assert (first[2], second[2]) == (["Default", "first"], ["Default", "second"])
