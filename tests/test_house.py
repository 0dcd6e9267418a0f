"""The house: how many rooms a floor has, how long a file is, and who may import whom."""

import ast
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import cleft_bundle
from tests.conftest import ROOT

PACKAGE = Path(cleft_bundle.__file__).parent
MODULES, LINES = 20, 400
QUESTIONS = {"How", "That", "What", "When", "Where", "Whether", "Which", "Who", "Why"}


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


def docstrings(folder: Path) -> Iterator[tuple[str, str]]:
    """Place and docstring of every module, and of every class and function with a public name."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                name = getattr(node, "name", "module")
                if not name.startswith("_") or name.startswith("__"):
                    yield f"{path.relative_to(folder.parent)}, {name}", text


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "scripts"], ids=lambda path: path.name)
def test_a_docstring_begins_with_the_thing_and_not_with_a_question(folder):
    found = dict(docstrings(folder))
    assert found
    assert [place for place, text in found.items() if text.split(maxsplit=1)[0] in QUESTIONS] == []
