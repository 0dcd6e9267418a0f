"""Optimizer steps of a config's network on random images and captions, as a training takes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser

from cleft_bundle.data import CaptionCollate
from cleft_bundle.engines import training_engine

Batch = dict[str, Any]
Clock = Callable[[], float]


def random_batch(config: ConfigParser, images: int, tokens: int, seed: int, distinct: int | None = None) -> Batch:
    """Random images with captions of random words, collated as in training.

    Args:
        config: a training config, whose ``image_size`` and tokenizer are taken.
        images: number of images.
        tokens: length of each caption in tokens, its closing EOS not counted.
        seed: of images and captions.
        distinct: number of captions, which the images take in turns. None: one per image.

    Returns:
        what :class:`cleft_bundle.data.CaptionCollate` gives.
    """
    random = torch.Generator().manual_seed(seed)
    side = int(config.get_parsed_content("image_size"))
    tokenizer = config.get_parsed_content("tokenizer")
    words = [text for text in map(tokenizer.decode, range(len(tokenizer))) if len(tokenizer(text)["input_ids"]) == 1]
    captions = []
    for _ in range(distinct or images):
        caption = ""
        while len(tokenizer(caption)["input_ids"]) < tokens:
            caption += words[int(torch.randint(len(words), (1,), generator=random))]
        captions.append(caption)
    items = [
        {"image": torch.randn(3, side, side, generator=random), "caption": captions[number % len(captions)]}
        | {"label": [0.0], "name": str(number)}
        for number in range(images)
    ]
    return CaptionCollate(config.get_parsed_content("tokenize"))(items)


def seconds_of_steps(
    config: ConfigParser, batches: Sequence[Batch], clock: Clock = time.perf_counter, **options: Any
) -> list[float]:
    """Seconds of each optimizer step of MONAI's trainer, one per batch, in their order.

    Args:
        config: a training config; its network goes on from where it is.
        batches: on the processor.
        clock: that is read before and after each.
        options: further arguments of :func:`cleft_bundle.engines.training_engine`.
    """
    device = config.get_parsed_content("device")
    parts = {name: config.get_parsed_content(name) for name in ("network", "optimizer")}
    trainer = training_engine(
        device=device,
        max_epochs=1,
        train_data_loader=list(batches),
        loss_function=config.get_parsed_content("loss"),
        **parts | options,
    )
    times: list[float] = []

    def read_clock() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock())

    trainer.add_event_handler(Events.ITERATION_STARTED, read_clock)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, read_clock)
    trainer.run()
    return [end - start for start, end in zip(times[::2], times[1::2], strict=True)]


def seconds_of_image_tower(
    config: ConfigParser, images: int, repeats: int = 3, clock: Clock = time.perf_counter
) -> float:
    """Seconds of the image tower's forward and backward pass alone, the median behind a first one."""
    network, device = (config.get_parsed_content(name) for name in ("network", "device"))
    side = int(config.get_parsed_content("image_size"))
    batch = torch.randn(images, 3, side, side, device=device)
    network.train()
    taken = []
    for _ in range(repeats + 1):
        start = clock()
        network.encode_image(batch).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
        network.zero_grad(set_to_none=True)
    return median(taken[1:])
