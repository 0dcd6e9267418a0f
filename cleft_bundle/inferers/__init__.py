"""Inferers: networks as they are applied inside MONAI's evaluators."""

from cleft_bundle.inferers.logits import LogitsInferer
from cleft_bundle.inferers.zero_shot import ClassPromptInferer, ZeroShotInferer

__all__ = ["ClassPromptInferer", "HeatMaps", "LogitsInferer", "ReadableInferer", "ZeroShotInferer"]
