import json

import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.extras import require


def test_a_package_that_is_there():
    assert require("json", "train") is json


def test_one_that_is_not_names_its_extra_in_one_line():
    with pytest.raises(BundleError) as caught:
        require("no_such_package.part", "sr")
    assert "no_such_package cannot be imported" in str(caught.value)
    assert str(caught.value).endswith("pip install 'cleft_bundle[sr]'")
