"""What the tests of public sets share."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Write the miniature of the module's set, ``miniature``, and return its root."""
    return partial(request.module.miniature, tmp_path)
