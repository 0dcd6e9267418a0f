import json
import shlex
import shutil

import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.experiments import Places, Plan, read_experiment


def steps(plan):
    return [(job.step, job.seed) for job in plan.jobs.values()]


def test_a_step_that_rows_share_is_run_once(content, make_plan):
    plan = make_plan(content)
    cell = [("pretraining", 0), ("zero_shot", 0)]
    assert steps(plan)[:2] == cell  # cell by cell
    twice = [(step, seed) for step in ("pretraining", "zero_shot") for seed in (0, 0, 1, 1)]
    assert sorted(steps(plan)) == sorted([*twice, ("probe", 0), ("probe", 1)])
    assert [line.label for line in plan.lines] == ["LoRA, zero_shot", "LoRA, probe", "LoRA, 10 %", "frozen"]
    assert [line.reference for line in plan.lines] == ["frozen"] * 4
    assert plan.lines[1].chains == plan.lines[2].chains
    for line in plan.lines:
        for chain in line.chains.values():
            assert plan.jobs[chain[-1]].needs == chain[:-1]


def test_a_reference_is_measured_as_the_row_is_where_it_can(content, make_plan):
    content["rows"][2]["steps"] = ["probe", "zero_shot"]
    plan = make_plan(content)
    assert [line.reference for line in plan.lines] == [
        *("frozen, zero_shot", "frozen, probe", "frozen, probe"),
        *("frozen, probe", "frozen, zero_shot"),
    ]


def test_settings_are_what_the_workflow_gets(content, make_plan, tmp_path):
    content["rows"][2]["overrides"]["prompts"] = {"a #1 [50 %]": "{findings} of {data}"}
    plan = make_plan(content)
    training, evaluation = (plan.jobs[one] for one in plan.lines[3].chains[1])
    assert training.settings["dataset_dir"] == str(tmp_path / "data #1")
    assert training.settings["prompts"] == {"a #1 [50 %]": "{findings} of {data}"}
    assert evaluation.settings["checkpoint"] == f"{training.folder}/models/cleft.pt"
    assert evaluation.settings["peft"] == training.settings["peft"] == "none"
    assert (evaluation.settings["seed"], evaluation.settings["subset_seed"]) == (1, 1)
    assert evaluation.settings["evaluate_split"] == "test"
    assert "evaluate_split" not in training.settings
    training.write_settings()
    assert json.loads((training.folder / "settings.json").read_text()) == training.settings
    assert shlex.split(training.command)[1:] == training.arguments


def test_a_change_touches_only_what_depends_on_it(content, make_plan, tmp_path, root):
    before = set(make_plan(content).jobs)

    def new(changed):
        plan = Plan(read_experiment(changed), Places(tmp_path / "bundle", tmp_path / "out", str(tmp_path / "data #1")))
        return sorted({plan.jobs[one].step for one in set(plan.jobs) - before})

    bundle = tmp_path / "bundle"
    shutil.copytree(root / "configs", bundle / "configs")
    file = tmp_path / "small.json"
    assert new(file) == []  # another folder of the same configs
    content["steps"]["probe"]["overrides"]["strengths"] = [1.0]
    file.write_text(json.dumps(content))
    assert new(file) == ["probe"]
    content["rows"][0]["of"] = {"zero_shot": {"resamples": 7}}
    file.write_text(json.dumps(content))
    assert new(file) == ["probe", "zero_shot"]
    overlay = bundle / "configs" / "evaluate.json"
    overlay.write_text(overlay.read_text().replace('"report_cases": 8', '"report_cases": 9'))
    assert "pretraining" not in new(file)
    (tmp_path / "data #1" / "labels.csv").write_text("image,finding\na.png,y\n")
    assert new(file) == ["pretraining", "probe", "zero_shot"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["base"]["overrides"].update(epoch=2), "has an id 'epoch' (did you mean 'epochs'?)"),
        (lambda c: c["rows"][0].update(of={"probe": {"fraction": [1]}}), "(did you mean 'fractions'?)"),
        (
            lambda c: c["base"]["config_files"].append("configs/net_smal.json"),
            "(did you mean 'configs/net_small.json'?)",
        ),
        (lambda c: c["base"]["overrides"].update(image_backbone="{backbones}/x"), "--backbones is missing"),
        (
            lambda c: c["steps"]["pretraining"].update(overrides={"checkpoint": "{probe}/x"}),
            "steps need each other: zero_shot -> pretraining -> probe -> pretraining",
        ),
    ],
)
def test_what_cannot_run_is_told_before_anything_runs(content, make_plan, change, told):
    change(content)
    with pytest.raises(BundleError) as caught:
        make_plan(content)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_some_rows_and_what_they_are_compared_with(content, make_plan):
    assert [line.label for line in make_plan(content, only=["LoRA, 10 %"]).lines] == ["LoRA, 10 %", "frozen"]
    with pytest.raises(BundleError, match=r"--only: there is no row 'frozn' \(did you mean 'frozen'\?\)"):
        make_plan(content, only=["frozn"])


def test_a_broken_run_is_not_done(content, make_plan):
    plan = make_plan(content)
    job = next(iter(plan.jobs.values()))
    assert job.cost() is None
    job.write_settings()
    for text in ("{", json.dumps({"fingerprint": "of others"})):
        (job.folder / "done.json").write_text(text)
        assert job.cost() is None
    (job.folder / "done.json").write_text(json.dumps({"fingerprint": job.fingerprint, "seconds": 1}))
    assert job.cost()["seconds"] == 1
