import json
import sys

import pytest
from monai.bundle import ConfigParser, run

from cleft_bundle.literals import _was_misread, as_written, literal, typed_options
from tests.configs.conftest import bundle_error

CONFIG = {
    "imports": ["$import cleft_bundle", "$import json", "$from pathlib import Path"],
    "output_dir": "nowhere",
    "dataset_name": "x",
    "captions": {"a#b": "c#d"},
    "nested": {"list": ["a#b", "@output_dir", {"deep": "50%#x"}]},
    "joined": "$@output_dir + '/x'",
    "initialize": ["$cleft_bundle.config.check_config()"],
    "run": [
        "$Path(@place).write_text(json.dumps([@output_dir, @joined, @nested, @dataset_name, @captions]))",
        "$Path(@place + '.config').write_text(json.dumps(cleft_bundle.config.executed_config()))",
    ],
    "place": None,
}


@pytest.fixture
def values(tmp_path, monkeypatch):
    """Run a config with overrides, and return what its expressions see, and the config as it is stored."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "a.json").write_text(json.dumps(CONFIG))
    (configs / "metadata.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["pytest"])

    def values(**overrides):
        place = tmp_path / "place"
        run(config_file=str(configs / "a.json"), logging_file=False, place=str(place), **overrides)
        return json.loads(place.read_text()), json.loads((tmp_path / "place.config").read_text())

    return values


@pytest.mark.parametrize("name", ["/data/set#1", "a#b::c", "50%#1", 'it\'s #"1"', "ü#😀", "me@host#x", "\\#", "a::b"])
def test_a_text_is_what_was_given_wherever_it_is_referred_to(values, name):
    (output_dir, joined, nested, dataset_name, captions), stored = values(output_dir=name, dataset_name=f"{name}#")
    assert [output_dir, joined, dataset_name] == [name, f"{name}/x", f"{name}#"]
    assert nested["list"] == ["a#b", name, {"deep": "50%#x"}]
    assert captions == {"a#b": "c#d"}
    assert stored["output_dir"] == name


@pytest.mark.parametrize("value", ["$data", "$a b", "$", "@home", "$@home + '/x'"])
def test_a_name_that_is_read_as_an_expression_is_one_line(values, value):
    with pytest.raises(RuntimeError) as caught:
        values(output_dir=value)
    assert bundle_error(caught).startswith(f"output_dir: {value!r} ")
    assert bundle_error(caught).endswith(f" is given as ./{value}")


@pytest.mark.parametrize("key", ["output_dir", "dataset_name"])
def test_a_name_that_is_read_as_a_macro_is_one_line(values, key):
    with pytest.raises(RuntimeError) as caught:
        values(**{key: "%joined"})
    assert bundle_error(caught).startswith(f"{key}: '%joined' is read as a macro")
    assert bundle_error(caught).endswith(" is given as ./%joined")
    with pytest.raises(KeyError, match="50 set"):  # of MONAI, before any config of ours runs
        values(**{key: "%50 set"})


def test_a_name_with_a_per_cent_sign_behind_a_dot_passes(values):
    (output_dir, joined, _, dataset_name, _), stored = values(output_dir="./%joined", dataset_name="50 %")
    assert (output_dir, joined, dataset_name) == ("./%joined", "./%joined/x", "50 %")
    assert stored["output_dir"] == "./%joined"


def test_expressions_and_references_stay_what_they_are(values):
    (output_dir, _, nested, *_), _ = values(output_dir="$'/a' + '/b'", dataset_name="@nested#list#0")
    assert output_dir == "/a/b"
    assert nested["list"][1] == "/a/b"


def test_what_fire_reads_in_a_name_is_undone():
    typed = typed_options(
        ["--output_dir", "set#1", "--models_dir=2024", "--epochs", "3", "--run_name", "'q'", "--cache_dir", "None"]
    )
    fire = {"output_dir": "set", "models_dir": 2024, "epochs": 3, "run_name": "q", "cache_dir": None}
    assert [key for key, text in typed.items() if _was_misread(key, text, fire)] == ["output_dir", "models_dir"]


@pytest.mark.parametrize("content", ["a#b", "@x", "%y", "$z", "\\x23", "'\"", {"a#": ["#", 1, None]}, "😀"])
def test_a_literal_is_read_as_it_was_written(content):
    parser = ConfigParser({"x": "no", "y": literal(content)})
    assert parser.get_parsed_content("y") == content
    assert as_written({"a": [literal(content)]}) == {"a": [content]}


def test_what_a_person_wrote_as_an_expression_is_shown_as_one():
    assert as_written(["$'a' + 'b'", "$'plain'", "${'a': 1}['a']"]) == ["$'a' + 'b'", "plain", "${'a': 1}['a']"]
