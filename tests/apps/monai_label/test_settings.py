import json

import pytest

from cleft_bundle.apps.monai_label.lib.settings import Settings
from cleft_bundle.errors import BundleError
from tests.conftest import ROOT


@pytest.fixture
def bundle(tmp_path):
    """A bundle in the folder ``model`` of an application."""
    root = tmp_path / "model" / "mine"
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    for name in ("train.json", "net_small.json"):
        (root / "configs" / name).write_text("{}")
    return root


def test_the_checkout_is_the_bundle_of_who_names_none(tmp_path):
    settings = Settings.of({}, tmp_path)
    assert settings.bundle == ROOT
    assert settings.model == ROOT / "models" / "model.pt"
    assert settings.task_type == "classification"


def test_everything_can_be_named(bundle, tmp_path):
    (bundle / "models" / "cleft.pt").write_bytes(b"")
    conf = {"bundle": "mine", "network": "net_small.json", "values": '{"text_backbone":"/weights"}', "device": "cpu"}
    settings = Settings.of(conf, tmp_path)
    assert settings.bundle == bundle
    assert (settings.model, settings.cleft) == (bundle / "models" / "model.pt", bundle / "models" / "cleft.pt")
    assert settings.network == ["net_small.json"]
    assert settings.values == {"text_backbone": "/weights"}
    assert Settings.of({"bundle": str(bundle)}, "elsewhere").bundle == bundle
    assert Settings.of(conf | {"cleft": "none"}, tmp_path).cleft is None
    assert Settings.of({"model": "a.pt", "sam2": "false", "zoo_source": "ngc"}, tmp_path).model.name == "a.pt"


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"modle": "x"}, "--conf modle is unknown (did you mean 'model'?)"),
        ({"bundle": "nowhere"}, "--conf bundle: nowhere is no folder with configs/train.json"),
        ({"cleft": "nowhere.pt"}, "--conf cleft: nowhere.pt does not exist"),
        ({"network": "net_smal.json"}, "there is no net_smal.json in the folder configs"),
        ({"values": "{"}, "--conf values is no JSON"),
        ({"values": json.dumps([1])}, "--conf values: expected a JSON object"),
        ({"template": "a chest x ray"}, "the slot {class}"),
        ({"task_type": "segmentation"}, "--conf task_type: expected one of classification, detection"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, conf, reason):
    with pytest.raises(BundleError) as caught:
        Settings.of(conf, tmp_path)
    assert reason in str(caught.value)
