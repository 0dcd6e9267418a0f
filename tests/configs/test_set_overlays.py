"""The overlays of public sets that no other test trains by: their items are divided, and one of them trains."""

from functools import partial

import pytest
from monai.bundle import ConfigWorkflow

from tests.conftest import ROOT
from tests.data.datasets import (
    test_cmmd,
    test_covid,
    test_mias,
    test_mimic_cxr,
    test_padchest,
    test_rsna_breast,
    test_siim,
    test_vindr_cxr,
)

#: The patient whose images are for validation has a finding.
LABELS = test_mimic_cxr.LABELS.replace("10000764,57375967,,", "10000764,57375967,1.0,")
#: Overlay, what writes a miniature of its set, and other values than its own.
SETS = [
    ("rsna_breast", test_rsna_breast.miniature, {}),
    ("mias", test_mias.miniature, {}),
    ("mias", test_mias.miniature, {"target": "severity"}),
    ("cmmd", test_cmmd.miniature, {}),
    ("mimic_cxr", partial(test_mimic_cxr.miniature, labels=LABELS), {"frontal_only": False}),
    ("vindr_cxr", test_vindr_cxr.miniature, {}),
    ("padchest", test_padchest.miniature, {}),
    ("siim", test_siim.miniature, {}),
    ("covid", test_covid.miniature, {}),
]


@pytest.mark.parametrize(
    ("name", "write", "override"), SETS, ids=[f"{name}{number}" for number, (name, *_) in enumerate(SETS)]
)
def test_an_overlay_lists_and_divides_its_set(name, write, override, tmp_path):
    workflow = ConfigWorkflow(
        [str(ROOT / "configs" / file) for file in ("train.json", f"data_{name}.json")],
        logging_file=False,
        workflow_type="train",
        bundle_root=str(ROOT),
        dataset_dir=str(write(tmp_path)),
        **{"splits#fractions": [0.5, 0.5, 0.0], **override},
    )
    splits = workflow.parser.get_parsed_content("splits")
    items = workflow.parser.get_parsed_content("items")
    assert splits["train"]
    assert sum(map(len, splits.values())) == len(items)
