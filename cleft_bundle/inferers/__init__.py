"""How networks are applied inside MONAI's evaluators."""

from cleft_bundle.inferers.readable import ReadableInferer
from cleft_bundle.inferers.zero_shot import ZeroShotInferer

__all__ = ["ReadableInferer", "ZeroShotInferer"]
