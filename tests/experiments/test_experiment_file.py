import json

import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.experiments.experiment_file import placed, places_in, read_experiment

GOOD = {
    "name": "small",
    "base": {"config_files": ["configs/train.json"], "overrides": {"dataset_dir": "{data}/a"}},
    "steps": {"training": {"run": "training"}, "probe": {"run": "probing"}},
    "rows": [{"label": "a #1 50 % [b] \"c'|d", "steps": ["probe"]}, {"label": "b", "steps": ["probe", "training"]}],
    "seeds": [0, 1],
    "reference": "b",
    "metrics": ["auroc_macro", "auroc/no finding"],
}


def changed(path, value):
    """The content with one value in it changed; None takes it away."""
    content = json.loads(json.dumps(GOOD))
    *above, last = path
    place = content
    for key in above:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def test_labels_are_data(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(GOOD))
    found = read_experiment(path)
    assert [row.label for row in found.rows] == [row["label"] for row in GOOD["rows"]]
    assert (found.split, found.seed_ids) == ("test", ["seed", "subset_seed"])


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (["refrence"], "b", "unknown key 'refrence' at refrence (did you mean 'reference'?)"),
        (["base", "override"], {}, "unknown key 'override' at base.override (did you mean 'overrides'?)"),
        (["steps", "probe", "runs"], "x", "(did you mean 'run'?)"),
        (["rows", 1, "stepss"], [], "unknown key 'stepss' at rows.1.stepss ('b') (did you mean 'steps'?)"),
        (["rows", 1, "point"], {"sorce": "cleft"}, "(did you mean 'source'?)"),
        (["tables"], {"t": {"from": "x", "findings": "y"}}, "(did you mean 'finding'?)"),
        (["reference"], "B", "reference: there is no 'B' (did you mean 'b'?)"),
        (["rows", 0, "reference"], "x", "reference: there is no 'x'"),
        (["rows", 0, "steps"], ["prob"], "there is no 'prob' (did you mean 'probe'?)"),
        (["rows", 0, "of"], {"prob": {}}, "there is no 'prob' (did you mean 'probe'?)"),
        (["rows", 0, "label"], "b", "rows: 'b' is there twice"),
        (["seeds"], [1, 1], "seeds: '1' is there twice"),
        (["seeds"], [], "seeds: "),
        (["seeds"], [-1], "seeds.0: "),
        (["seeds"], ["0"], "seeds.0: "),
        (["metrics"], ["aurocc_macro"], "unknown metric 'aurocc_macro' (did you mean 'auroc'?)"),
        (["split"], "validation", "split: input should be 'test'"),
        (["name"], "../up", "name '../up': expected letters"),
        (["steps", "data"], {"run": "training"}, "'data' names a place"),
        (["base", "overrides"], {"dataset_dir": "{dat}/a"}, "place: there is no 'dat' (did you mean 'data'?)"),
        (["rows", 1, "overrides"], {"checkpoint": ["{trainning}/x"]}, "(did you mean 'training'?)"),
        (["base"], None, "base: field required"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, path, value, told):
    file = tmp_path / "small.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(BundleError) as caught:
        read_experiment(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "text_tower.json").write_text("{")
    with pytest.raises(BundleError, match=r"text_towr\.json does not exist \(did you mean '.*text_tower\.json'\?\)"):
        read_experiment(tmp_path / "text_towr.json")
    with pytest.raises(BundleError, match=r"text_tower\.json is no JSON: "):
        read_experiment(tmp_path / "text_tower.json")


def test_braces_mean_a_place_at_the_beginning_only():
    value = {"a": ["{data}/x", "{data}", "with {data}", "{findings}", "{findings} of a {view}"], "b": {"c": "{step}/y"}}
    assert sorted(places_in(value)) == ["data", "data", "findings", "step"]
    put = placed(value, {"data": "/d", "step": "/s"})
    assert put == {"a": ["/d/x", "/d", "with {data}", "{findings}", "{findings} of a {view}"], "b": {"c": "/s/y"}}
