"""Transforms that a file declares: what ``model.pt`` says about how its images are prepared.

The declarations are MONAI's JSON components with every reference resolved. A file may come from anywhere, so nothing
in it is evaluated: expressions are refused, and a component must be a transform of MONAI or of this bundle, or its
reader.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms import Compose, Transform

from cleft_bundle.errors import BundleError

READER = "cleft_bundle.data.RadiographReader"
_ROOMS = ("monai.transforms", "cleft_bundle.transforms")  # a bare name is one of the first
_EVALUATED = ("$", "@", "%")


def build_transforms(declared: Sequence[Mapping[str, Any]]) -> Compose:
    """Build the transforms that a list of components declares.

    Args:
        declared: one JSON object a transform, with ``_target_`` and its arguments.

    Returns:
        the transforms in their order.

    Raises:
        BundleError: where a component is no transform of MONAI or of this bundle, or holds an expression.

    Examples:
        >>> import torch
        >>> declared = [{"_target_": "RepeatChanneld", "keys": "image", "repeats": 3}]
        >>> build_transforms(declared)({"image": torch.ones(1, 4, 4)})["image"].shape
        torch.Size([3, 4, 4])
    """
    for component in declared:
        _check(component)
    parser = ConfigParser({"transforms": list(declared)})
    return Compose(parser.get_parsed_content("transforms"))


def _check(value: Any) -> None:
    if isinstance(value, Mapping):
        if "_target_" in value and not _is_transform(str(value["_target_"])):
            raise BundleError(
                f"declared transform {value['_target_']!r}: expected a transform of monai.transforms or "
                f"cleft_bundle.transforms; pass --preprocessing to prepare images with others"
            )
        for part in value.values():
            _check(part)
    elif isinstance(value, list):
        for part in value:
            _check(part)
    elif isinstance(value, str) and value.startswith(_EVALUATED):
        raise BundleError(f"declared transforms: {value!r} would be evaluated; expected plain values")


def _is_transform(name: str) -> bool:
    room, _, kind = name.rpartition(".")
    room = room or _ROOMS[0]
    found = getattr(importlib.import_module(room), kind, None) if room in _ROOMS else None
    return name == READER or (inspect.isclass(found) and issubclass(found, Transform))
