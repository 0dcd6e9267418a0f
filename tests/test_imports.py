import importlib
import pkgutil

import pytest

import cleft_bundle

MODULES = [module.name for module in pkgutil.walk_packages(cleft_bundle.__path__, "cleft_bundle.")]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # MONAI Label has an environment of its own
        if error.name != "monailabel" or not name.startswith("cleft_bundle.apps.monai_label."):
            raise
