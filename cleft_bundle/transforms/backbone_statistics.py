"""Mean and standard deviation of the images that an image backbone was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, ImageProcessingMixin
from transformers.utils.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from cleft_bundle.errors import BundleError, one_line
from cleft_bundle.open_clip_files import is_open_clip, read_config

Triple = tuple[float, float, float]

FAMILIES = {
    **dict.fromkeys(
        (
            *("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext", "vit_mae"),
            *("convnext", "convnextv2", "resnet", "swin"),
        ),
        (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    ),
    **dict.fromkeys(
        ("beit", "vit", "siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model"),
        (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
    ),
    **dict.fromkeys(("clip", "clip_vision_model"), (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)),
}


def backbone_statistics(backbone: str | Mapping[str, Any]) -> tuple[Triple, Triple]:
    """Find the mean and standard deviation, per channel and for values of 0..1, that a backbone expects.

    Args:
        backbone: a hub id or a local folder, whose `preprocessor_config.json` is read, and where there is none the
            `model_type` in its `config.json`; an open_clip checkpoint, whose `preprocess_cfg` is read; or a mapping of
            config values with `model_type`. A model type has the statistics that its authors published, in `FAMILIES`.

    Returns:
        mean and standard deviation, three numbers each; 0 and 1 where the backbone's own processor does not normalise.
        Where it brings values of 0..255 to another range than 0..1 before, that is in them.

    Raises:
        BundleError: names the backbone if nothing can be found out, or its file does not hold the six numbers.

    Examples:
        >>> backbone_statistics({"model_type": "dinov2"})
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    """
    if isinstance(backbone, Mapping):
        return _of_family(backbone.get("model_type"), "the config")
    if is_open_clip(backbone):
        own = read_config(backbone).get("preprocess_cfg") or {}
        return _checked(own.get("mean", OPENAI_CLIP_MEAN), own.get("std", OPENAI_CLIP_STD), ("mean", "std"), backbone)
    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(backbone)
    except (OSError, ValueError):  # no such file, or no hub at hand: the backbone's own config may do
        return _of_family(_model_type(backbone), repr(backbone))
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.get("do_normalize", True):
        mean, std = _checked(
            processor.get("image_mean"), processor.get("image_std"), ("image_mean", "image_std"), backbone
        )
    white = _white(processor, backbone)
    return _triple([value / white for value in mean], "mean"), _triple([value / white for value in std], "std")


def _white(processor: Mapping[str, Any], backbone: str) -> float:
    """What a processor makes of 255 before it normalises: 1 as a rule."""
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
        raise BundleError(f"backbone: rescale_factor of {backbone!r} is {factor!r}: a number above 0 is expected")
    return round(255 * factor, 6)


def _checked(mean: Any, std: Any, names: tuple[str, str], backbone: str) -> tuple[Triple, Triple]:
    found = _triple(mean, f"{names[0]} of {backbone!r}"), _triple(std, f"{names[1]} of {backbone!r}")
    if min(found[1]) <= 0:
        raise BundleError(f"backbone: {names[1]} of {backbone!r} is {list(found[1])}: numbers above 0 are expected")
    return found


def _model_type(backbone: str) -> str:
    try:
        return AutoConfig.from_pretrained(backbone).model_type
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise BundleError(
            f"backbone: {backbone!r} has no readable preprocessor_config.json or config: {reason}"
        ) from error


def _of_family(model_type: Any, where: str) -> tuple[Triple, Triple]:
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise BundleError(f"backbone: model_type of {where} is {model_type!r}; statistics are known of {known}")
    mean, std = FAMILIES[model_type]
    return _triple(mean, "mean"), _triple(std, "std")


def _triple(values: Any, what: str) -> Triple:
    try:
        red, green, blue = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise BundleError(f"backbone: {what} is {values!r}: three numbers are expected") from error
    return red, green, blue
