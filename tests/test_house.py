"""The house: how many rooms a floor has, how long a file is, and who may import whom."""

from importlib.metadata import version
from pathlib import Path

import pytest

import cleft_bundle

PACKAGE = Path(cleft_bundle.__file__).parent
MODULES, LINES = 20, 400


def test_no_folder_has_more_modules_than_one_can_take_in():
    folders = [folder for folder in (PACKAGE, *PACKAGE.rglob("*")) if folder.is_dir()]
    counts = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    assert {str(folder): count for folder, count in counts.items() if count > MODULES} == {}


def test_no_module_is_longer_than_one_reads_at_a_sitting():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): lines for path, lines in lengths.items() if lines > LINES} == {}


def test_rooms_import_downwards_and_in_no_circle(monkeypatch, capsys):
    cli = pytest.importorskip("importlinter.cli", reason="import-linter comes with the extra test")
    assert version("import-linter")
    monkeypatch.chdir(PACKAGE.parent)
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)  # it silences the loggers of other tests
    code = cli.lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert code == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out
