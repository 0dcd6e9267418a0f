import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module

import pytest

from cleft_bundle.commands import COMMANDS, command_line, main
from cleft_bundle.commands.command_line import call, help_of, summary_of
from cleft_bundle.errors import BundleError, UsageError
from tests.conftest import ROOT


def run(monkeypatch, *words):
    """The exit code of `cleft WORDS`."""
    monkeypatch.setattr(sys, "argv", ["cleft", *words])
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["exprt"], "there is no command 'exprt' (did you mean 'export'?); cleft --help lists them"),
        (["export", "--form", "onnx"], "cleft export: there is no option --form (did you mean 'forms'?)"),
        (["init"], "cleft init: FOLDER is missing; see cleft init --help"),
        (["init", "a", "b"], "cleft init: 'b' is one argument too many"),
        (["init", "a", "--folder", "b"], "cleft init: folder is given twice"),
        (["preview", "--count", "many"], "--count: expected a whole number, got 'many'"),
        (["build", "--calibrate", "p.json", "q.json"], "--calibrate: expected true or false, got 'p.json'"),
        (["preview", "--count", "1", "--count=2"], "cleft preview: --count is given twice"),
        (["build", "--epochs", "1", "--epochs", "2"], "cleft build: --epochs is given twice"),
        (["report", "--label", "x"], "--label is no option of report (did you mean 'labels'?)"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["describe", "--dataset_dir", "%abc"],
            "dataset_dir: '%abc' is read as a macro, the content of another config id; a name that begins with % is "
            "given as ./%abc",
        ),
        (
            ["preview", "--epochs", "%abc"],
            "epochs: '%abc' refers to the config id 'abc', and there is none; a name that begins with % is given as "
            "./%abc",
        ),
        (
            ["describe", "--comparison#resamples", "5"],
            "unknown config id 'comparison#resamples': there is nothing that it could be a part of",
        ),
    ],
)
def test_an_override_that_monai_would_fail_on_is_one_line(words, message, monkeypatch, capsys, tmp_path):
    """Before any config of ours is looked at."""
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words, "--config_file", str(ROOT / "configs" / "train.json")) > 0
    assert capsys.readouterr().err == f"error: {message}\n"


def test_what_is_wrong_with_the_input_is_exit_code_1(monkeypatch, capsys, tmp_path):
    (tmp_path / "mine").touch()
    assert run(monkeypatch, "init", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith("error: init: ")


def test_the_help_lists_every_command_and_needs_nothing_heavy(root, tmp_path):
    """In a process of its own, which fails where a command's requirement is imported."""
    code = (
        "import sys, runpy\n"
        "sys.argv = ['cleft', '--help']\n"
        "runpy.run_module('cleft_bundle', run_name='__main__')\n"
        "heavy = {'torch', 'monai', 'transformers', 'pandas', 'pydicom', 'mlflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{code}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS)
    assert all(len(line) <= 140 for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_all_it_takes(name, monkeypatch, capsys):
    assert run(monkeypatch, name, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: cleft {name}")
    assert summary_of(COMMANDS[name]) in said
    assert "Args:" in said
    assert "``" not in said
    assert ":class:" not in said
    function = getattr(import_module(f"cleft_bundle.commands.{COMMANDS[name]}"), COMMANDS[name])
    assert said == help_of(name, function) + "\n"


def test_values_become_what_the_function_wants(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").touch()
    taken = []

    def work(first: str, *more: str, names: command_line.Sequence[str] = (), number: int = 0, really: bool = False):
        """Take."""
        taken.append((first, more, names, number, really))

    def trains(**override: command_line.Any):
        """Take."""
        taken.append(override)

    monkeypatch.setitem(work.__globals__, "Sequence", command_line.Sequence)
    call("work", work, ["2020", "a#b", "--number", "-3", "--really", "--names=['x','y']"])
    call("work", work, ["x", "--names", "x,y", "--really=false"])
    call("work", work, ["x", "--names", "[x, y]"])
    call("work", work, ["x", "--names", "a,b"])
    assert taken == [
        ("2020", ("a#b",), ["x", "y"], -3, True),
        ("x", (), ["x", "y"], 0, False),
        ("x", (), ["x", "y"], 0, False),
        ("x", (), ["a,b"], 0, False),
    ]
    taken.clear()
    call("trains", trains, ["--epochs", "3", "--dataset_dir", "2020", "--loss", "$None", "--tracking_uri", ""])
    (override,) = taken
    assert (override["epochs"], override["loss"]) == (3, "$None")
    assert [eval(override[key][1:]) for key in ("dataset_dir", "tracking_uri")] == ["2020", ""]  # noqa: S307


def test_a_usage_error_is_a_bundle_error():
    assert issubclass(UsageError, BundleError)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["x", "--find", "pleural effusion", "--find", "mass, large"], ["pleural effusion", "mass, large"]),
        (["x", "--find=a,b"], ["a", "b"]),
        (["--find", "['a', 'b']", "x"], ["a", "b"]),
        (["x", "--find=it's", '--find="'], ["it's", '"']),
    ],
)
def test_an_option_that_takes_a_list_may_be_repeated(words, expected):
    def function(*images: str, find: Sequence[str] = ()) -> None:
        found.append((images, find))

    found = []
    call("predict", function, words)
    assert found == [(("x",), expected)]
