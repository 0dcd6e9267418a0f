"""Words that every room shares: tasks, the class without a finding, and what sexes and sides are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

#: ``multiclass``: the classes exclude each other; ``multilabel``: each class is present or absent by itself.
Task = Literal["multiclass", "multilabel"]
#: The class of an image without any finding.
NO_FINDING = "no finding"
#: Words of the codes that items have for sex and side.
SEX_WORDS: Mapping[str, str] = {"F": "female", "M": "male"}
SIDE_WORDS: Mapping[str, str] = {"L": "left", "R": "right"}
