"""Cost of a training step as work grows: by batch, by how many captions differ, by processes, in one picture."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from monai.bundle import ConfigParser

from benchmarks.steps import Clock, random_batch, seconds_of_image_tower, seconds_of_steps
from cleft_bundle.commands.configs import read_config
from cleft_bundle.distributed import end_processes, start_processes
from cleft_bundle.engines.strategy import distribute
from cleft_bundle.errors import BundleError
from cleft_bundle.files import save_text
from cleft_bundle.reports.pages.pictures import COLOURS, GREY, draw_svg

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "train.json")
NETWORK = {
    "text_backbone#n_embd": 512,
    "text_backbone#n_layer": 6,
    "image_backbone#hidden_size": 192,
    "image_backbone#num_hidden_layers": 6,
}
Seconds = Callable[..., float]
SHARES = (0.0625, 0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass
class Panel:
    """A curve: what grows, and seconds of a step as measured and as they would ideally be."""

    title: str
    label: str
    values: Sequence[float]
    seconds: Sequence[float]
    ideal: Sequence[float]


def growth(
    config_file: str | Sequence[str] = CONFIG,
    batches: Sequence[int] = (8, 16, 32, 64, 128, 256, 512),
    chunk_size: int = 64,
    shares: Sequence[float] = SHARES,
    processes: Sequence[int] = (1, 2, 4),
    tokens: int = 20,
    repeats: int = 3,
    seed: int = 0,
    out: str = "growth.svg",
    **override: Any,
) -> None:
    """Time a step while one thing grows and all else stays, and draw it beside the ideal; the table is printed.

    - By batch: all captions differ; above ``chunk_size`` a step is in chunks. Ideal: as many times the step of
      ``chunk_size`` as there are images more or less.
    - By the share of captions that differ, at a batch of ``chunk_size``. Ideal: the image tower alone, and the rest of
      the step with all captions times the share.
    - By processes (DDP, a thread each), which divide a batch of ``chunk_size``. Ideal: the time of one, divided by
      the processes or, if fewer, by the cores.

    Each figure is the median of ``repeats`` steps behind a first one. On a CPU the first two curves are of processor
    time, which other work on the machine changes less; processes are timed by the clock on the wall.

    Args:
        config_file: a training config, or a list of one and its overlays.
        batches: numbers of images.
        chunk_size: as in a training; the batch of the two other curves.
        shares: of captions that differ, above 0 and up to 1.
        processes: numbers of them.
        tokens: length of each caption.
        repeats: steps of which the median is taken.
        seed: of images and captions.
        out: path of the picture; the figures come beside it as JSON.
        override: further values of the config, by id. Without any the towers are larger than the default's, so that
            both cost something: a ViT of 192 x 6 and a GPT-2 of 512 x 6.

    Raises:
        BundleError: where a share is none.
    """
    if not all(0 < share <= 1 for share in shares):
        raise BundleError(f"shares: expected numbers above 0 and up to 1, got {shares}")
    files = [config_file] if isinstance(config_file, str) else list(config_file)
    values = override or NETWORK
    config = read_config(files, values)
    seconds = partial(_seconds, tokens=tokens, repeats=repeats, seed=seed)
    clock = time.perf_counter if config.get_parsed_content("device").type == "cuda" else time.process_time
    panels = [
        _by_batch(config, partial(seconds, clock=clock), batches, chunk_size),
        _by_share(config, partial(seconds, clock=clock), shares, chunk_size, clock),
        _by_processes(partial(_divided, partial(_of_share, files, values, seconds)), processes, chunk_size),
    ]
    print("\n\n".join(map(_table, panels)))
    save_text(draw_svg(_picture, panels, size=(9.6, 3.0)), out)
    save_text(json.dumps([asdict(panel) for panel in panels], indent=2) + "\n", Path(out).with_suffix(".json"))


def _seconds(
    config: ConfigParser, images: int, distinct: int, tokens: int, repeats: int, seed: int, **options: Any
) -> float:
    batch = random_batch(config, images, tokens, seed, distinct)
    return median(seconds_of_steps(config, [batch] * (repeats + 1), **options)[1:])


def _by_batch(config: ConfigParser, seconds: Seconds, batches: Sequence[int], chunk_size: int) -> Panel:
    taken = {}
    for images in sorted({*batches, chunk_size}):
        chunks = {"chunk_size": chunk_size} if images > chunk_size else {}
        taken[images] = seconds(config, images, images, **chunks)
    ideal = [taken[chunk_size] * images / chunk_size for images in taken]
    return Panel("By batch", "images of a batch", list(taken), list(taken.values()), ideal)


def _by_share(config: ConfigParser, seconds: Seconds, shares: Sequence[float], images: int, clock: Clock) -> Panel:
    tower = seconds_of_image_tower(config, images, clock=clock)
    taken = {share: seconds(config, images, max(1, round(share * images))) for share in sorted({*shares, 1.0})}
    ideal = [tower + share * (taken[1.0] - tower) for share in taken]
    label = "share of captions that differ"
    return Panel(f"By captions, {images} images", label, list(taken), list(taken.values()), ideal)


def _by_processes(seconds: Callable[[int, int], float], processes: Sequence[int], images: int) -> Panel:
    cores = len(os.sched_getaffinity(0))
    taken = {number: seconds(number, images) for number in sorted({1, *processes})}
    ideal = [taken[1] / min(number, cores) for number in taken]
    label = "processes, a thread each"
    return Panel(f"By processes, {images} images", label, list(taken), list(taken.values()), ideal)


def _divided(work: Callable[..., float], number: int, images: int) -> float:
    """Seconds of a step that so many processes share."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ProcessPoolExecutor(number, multiprocessing.get_context("spawn")) as pool:
        return max(pool.map(partial(_of_process, work, images, number, port), range(number)))


def _of_process(work: Callable[..., float], images: int, number: int, port: int, own: int) -> float:
    """Seconds of a step in one of several processes, as torchrun starts them."""
    torch.set_num_threads(1)
    if number > 1:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        os.environ |= dict(zip(names, map(str, (own, own, number, "127.0.0.1", port)), strict=True))
        start_processes()
    taken = work(images // number)
    end_processes()
    return taken


def _of_share(config_file: Sequence[str], values: dict[str, Any], seconds: Seconds, images: int) -> float:
    config = read_config(config_file, values)
    distribute(config.get_parsed_content("network"))
    return seconds(config, images, images)


def _table(panel: Panel) -> str:
    rows = zip(panel.values, panel.seconds, panel.ideal, strict=True)
    lines = [f"| {panel.label} | seconds of a step | ideal | times the ideal |", "| ---: | ---: | ---: | ---: |"]
    return "\n".join(
        [*lines, *(f"| {value:g} | {own:.3f} | {ideal:.3f} | {own / ideal:.2f} |" for value, own, ideal in rows)]
    )


def _picture(figure: Figure, panels: Sequence[Panel]) -> None:
    axes: Sequence[Axes] = figure.subplots(1, len(panels))
    for place, panel in zip(axes, panels, strict=True):
        place.plot(panel.values, panel.ideal, color=GREY, label="ideal")
        place.plot(panel.values, panel.seconds, color=COLOURS["train"], marker="o", markersize=4, label="measured")
        place.set(title=panel.title, xlabel=panel.label)
        if "batch" in panel.label:
            place.set(xscale="log", yscale="log")
            place.yaxis.set_major_formatter("{x:g}")
        else:
            place.set_ylim(bottom=0)
        if min(panel.values) >= 1:
            place.set_xticks(panel.values, [f"{value:g}" for value in panel.values])
            place.minorticks_off()
    axes[0].set_ylabel("seconds of a step")
    axes[0].legend(frameon=False)
