import json

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from cleft_bundle.config import bundle_root, command, command_line, top_level_scalars
from cleft_bundle.errors import BundleError
from tests import processes


def workflow(root, **override):
    return ConfigWorkflow(str(root / "configs" / "train.json"), logging_file=False, workflow_type="train", **override)


@pytest.mark.parametrize("name", ["copy", "set#1 @home"])
@pytest.mark.parametrize("written", [".", "$cleft_bundle.config.bundle_root()"])
def test_bundle_root_is_where_the_config_of_a_run_lies(written, name, tmp_path, monkeypatch):
    """The second is what configs before 0.9.0 say."""
    bundle = tmp_path / name
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text("{}")
    content = {"bundle_root": written, "where": "$@bundle_root", "imports": ["$import cleft_bundle"]}
    content["initialize"] = ["$cleft_bundle.config.begin()"]
    (bundle / "configs" / "train.json").write_text(json.dumps(content))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    copied = workflow(bundle, run_id="where")
    copied.initialize()
    assert copied.run() == [str(bundle)]
    given = workflow(bundle, run_id="where", bundle_root="/given")
    given.initialize()
    assert given.run() == ["/given"]


def test_without_a_run_bundle_root_is_the_current_folder(root, tmp_path, monkeypatch):
    """As in the bundles of MONAI's model zoo: a checkout on the path is none."""
    monkeypatch.chdir(tmp_path)
    assert bundle_root() == "."
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    assert parser.get_parsed_content("model_path") == "./models/model.pt"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"epoches": 3}, "unknown config id 'epoches' (did you mean 'epochs'?)"),
        ({"train#trainers": 3}, "unknown config id 'train#trainers' (did you mean 'trainer'?)"),
        ({"train#trainer#max_epoch": 3}, "unknown config id 'train#trainer#max_epoch' (did you mean 'max_epochs'?)"),
        ({"train#sampler": None}, "unknown config id 'train#sampler': since 0.9.0 it is train#dataloader#seed"),
        ({"loss#_target_": "cleft_bundle.losses.Contrastive"}, "loss: there is no class or function"),
        ({"task": ["multiclass", "multilabel"]}, "task: expected a text"),
    ],
)
def test_an_override_that_nothing_knows_is_an_error_with_the_nearest_id(override, message, root):
    with pytest.raises(RuntimeError) as caught:
        workflow(root, **override).initialize()
    assert isinstance(caught.value.__cause__, BundleError)
    assert message in str(caught.value.__cause__)


@pytest.mark.parametrize("name", ["finetune.json", "linear_probe.json"])
@pytest.mark.parametrize("former", [{"resamples": 50}, {"_target_": "cleft_bundle.handlers.LabelEfficiency"}])
def test_the_former_id_of_a_component_is_an_error_where_nothing_takes_it(former, name, root, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"comparison": former}))
    files = [str(root / "configs" / "train.json"), str(root / "configs" / name), str(tmp_path / "mine.json")]
    with pytest.raises(RuntimeError) as caught:
        ConfigWorkflow(files, logging_file=False, workflow_type="train").initialize()
    assert str(caught.value.__cause__) == "unknown config id 'comparison': since 0.9.0 it is label_efficiency"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_switches_of_the_command_line_are_booleans(text, value, root):
    read = workflow(root, gather=text, dataset_name="$'seen' if @gather else 'not seen'")
    read.initialize()
    assert read.parser.get()["gather"] is value
    assert read.parser.get_parsed_content("gather") is value
    assert read.parser.get_parsed_content("dataset_name") == ("seen" if value else "not seen")


def test_an_id_that_another_value_refers_to_is_known(root):
    workflow(root, my_own="x", dataset_name="@my_own").initialize()


def test_top_level_scalars_are_evaluated_and_never_run_the_workflow(root):
    class Probe(ConfigWorkflow):
        def scalars(self):
            return top_level_scalars()

    probe = Probe(
        str(root / "configs" / "train.json"),
        logging_file=False,
        output_dir="/out",
        dataset_dir="/data",
        class_names=["edema"],
        tokenizer=None,
        network="$None",
    )
    values = probe.scalars()
    assert values["epochs"] == probe.parser["epochs"]
    assert values["tracking_uri"] == "sqlite:////out/mlruns.db"
    assert values["dataset_dir"] == "/data"
    assert not {"training", "run", "network"} & set(values)
    assert top_level_scalars() == {}


@pytest.mark.slow
def test_bad_input_is_one_line_on_the_console(root, tmp_path):
    command = ["-m", "monai.bundle", "run", "training", "--config_file", root / "configs/train.json"]
    done = processes.run([*command, "--epoches", "3"], tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: unknown config id 'epoches' (did you mean 'epochs'?)"
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "files", "options"),
    [
        ("run training --config_file configs/train.json", ["configs/train.json"], []),
        (
            "run training --config_file ['a.json','b.json'] --epochs=2 --resume true --dataset_dir /x --seed -1",
            ["a.json", "b.json"],
            ["--epochs", "2", "--dataset_dir", "/x", "--seed", "-1"],
        ),
        ("-q tests", [], []),
    ],
)
def test_the_command_line_is_read_for_the_commands_that_follow(typed, files, options, monkeypatch):
    monkeypatch.setattr("sys.argv", ["monai.bundle", *typed.split()])
    assert command_line() == (files, options)


def test_a_command_quotes_what_a_shell_would_take_apart():
    assert command("evaluating", ["a.json"], "--dataset_dir", "my folder").endswith("a.json --dataset_dir 'my folder'")
