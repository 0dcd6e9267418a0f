"""What is wrong with a request, as an HTTP answer with the reason; MONAI Label would answer 500 without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

from cleft_bundle.errors import BundleError


@contextmanager
def refusals() -> Iterator[None]:
    """Answer 400 for a BundleError, 404 for what the datastore does not have, and 400 for MONAI Label's own errors."""
    try:
        yield
    except BundleError as error:
        raise HTTPException(400, str(error)) from error
    except (ImageNotFoundException, LabelNotFoundException) as error:
        raise HTTPException(404, error.msg) from error
    except MONAILabelException as error:
        raise HTTPException(400, error.msg) from error
