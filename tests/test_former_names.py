"""Names that stand in files of users (model.pt, registered models, overlays of their own) keep their meaning."""

from __future__ import annotations

from importlib import import_module
from pydoc import locate

import pytest

from cleft_bundle.packaging import mlflow_model

SETS = (
    *("cbis_ddsm", "chexpert", "cmmd", "covid", "dicom_dir", "embed", "folder", "mias", "mimic_cxr", "nih", "openi"),
    *("padchest", "rsna", "rsna_breast", "siim", "vindr_cxr", "vindr_mammo"),
)


@pytest.mark.parametrize("name", SETS)
def test_a_config_finds_a_dataset_by_its_former_name(name):
    assert locate(f"cleft_bundle.data.{name}.datalist") is import_module(f"cleft_bundle.data.datasets.{name}").datalist


def test_the_preprocessing_in_a_classifier_finds_the_reader():
    reader = import_module("cleft_bundle.data.radiograph_reader").RadiographReader
    assert locate("cleft_bundle.data.RadiographReader") is reader


def test_a_registered_model_finds_its_loader():
    assert import_module("cleft_bundle.checkpoints.mlflow_model")._load_pyfunc is mlflow_model._load_pyfunc


@pytest.mark.parametrize("name", ["Lora", "Dora", "Ia3", "Prefix", "AdaLora"])
def test_a_config_of_before_0_9_finds_its_method_of_adaptation(name):
    """Overlays name them as ``_target_`` of ``peft``, with arguments of ours in place of peft's."""
    method = getattr(import_module("cleft_bundle.networks"), name)
    assert locate(f"cleft_bundle.networks.{name}") is method
    assert method().name == name.lower()
