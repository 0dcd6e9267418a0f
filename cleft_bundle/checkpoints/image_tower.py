"""Starts of an image tower: contrastive pre-training, its untouched backbone, or random weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Literal, get_args

from cleft_bundle.checkpoints.trained_state import load_image_tower
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks import ImageEncoder, build_image_encoder

logger = logging.getLogger(__name__)

Source = Literal["cleft", "backbone", "random"]


def image_tower(source: Source, encoder: ImageEncoder, checkpoint: str, seed: int = 0) -> ImageEncoder:
    """Make an image tower.

    Args:
        source: ``cleft`` takes the tower of a checkpoint, ``backbone`` what the config loads, ``random`` the same
            architecture with random weights.
        encoder: the tower as the config loads it, which stays as it is.
        checkpoint: such as ``models/cleft.pt``; no other source reads it.
        seed: of the random weights.

    Raises:
        BundleError: an unknown source, or a checkpoint that does not exist or does not fit.
    """
    require_one_of("source", source, get_args(Source))
    if source == "random" and encoder.pretrained:
        return build_image_encoder(encoder.settings, seed, encoder.peft if encoder.adapted else "full")
    tower = copy.deepcopy(encoder)
    return load_image_tower(tower, checkpoint) if source == "cleft" else tower


def true_source(source: Source, encoder: ImageEncoder) -> Source:
    """Say what a source amounts to.

    A frozen backbone is the same in a checkpoint, and a backbone from a config has random weights to begin with: the
    log says so.

    Args:
        source: ``cleft``, ``backbone`` or ``random``.
        encoder: the tower as the config loads it.
    """
    require_one_of("source", source, get_args(Source))
    if source == "cleft" and not any(parameter.requires_grad for parameter in encoder.backbone.parameters()):
        logger.warning("source cleft: its image backbone was frozen, so that this is source backbone")
        source = "backbone"
    if source == "backbone" and not encoder.pretrained:
        logger.warning("source backbone: %s has random weights, so that this is source random", encoder.source)
        source = "random"
    return source


def file_of(source: Source, checkpoint: str) -> str | None:
    """The file that a source comes from, whose patients count as trained on: None but for ``cleft``.

    Args:
        source: ``cleft``, ``backbone`` or ``random``.
        checkpoint: file of source ``cleft``.
    """
    return checkpoint if source == "cleft" else None


def image_towers(
    sources: Sequence[Source], encoder: ImageEncoder, checkpoint: str, seed: int = 0
) -> dict[str, ImageEncoder]:
    """Make the towers of several sources by :func:`image_tower`; those that are the same appear once.

    Raises:
        BundleError: no source, or what :func:`image_tower` raises.
    """
    if not sources:
        raise BundleError(f"sources: expected some of {', '.join(get_args(Source))}")
    distinct = dict.fromkeys(true_source(source, encoder) for source in sources)
    return {source: image_tower(source, encoder, checkpoint, seed) for source in distinct}
