import pytest
import torch

from cleft_bundle.errors import BundleError
from cleft_bundle.transforms import build_transforms

LOAD = {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "cleft_bundle.data.RadiographReader"}}


def test_components_of_monai_and_of_this_bundle_are_built_in_their_order():
    declared = [
        {"_target_": "monai.transforms.ScaleIntensityd", "keys": "image", "minv": 0.0, "maxv": 2.0},
        {"_target_": "cleft_bundle.transforms.GreyToRGBd", "keys": "image"},
    ]
    out = build_transforms(declared)({"image": torch.tensor([[[0.0, 1.0]]])})["image"]
    assert out.tolist() == [[[0.0, 2.0]]] * 3


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ({"_target_": "os.system", "command": "true"}, "declared transform 'os.system': expected a transform"),
        ({"_target_": "monai.transforms.utils.os.system"}, "expected a transform of monai.transforms or"),
        ({"_target_": "monai.bundle.run"}, "declared transform 'monai.bundle.run'"),
        ({"_target_": "allow_missing_keys_mode"}, "expected a transform"),  # a function of that module
        ({"_target_": "SpatialPadd", "keys": "image", "spatial_size": "$print(1)"}, "would be evaluated"),
        ({"_target_": "SpatialPadd", "keys": "image", "spatial_size": ["@other"]}, "'@other' would be evaluated"),
        (LOAD | {"reader": {"_target_": "builtins.eval", "source": "1"}}, "declared transform 'builtins.eval'"),
    ],
)
def test_nothing_else_is_built_or_evaluated(component, message):
    with pytest.raises(BundleError, match=message.replace("$", "[$]").replace("(", "[(]")):
        build_transforms([LOAD, component])
