"""Feeding a training: a synthetic CheXpert, a store filled and opened again, and MONAI's caches beside it."""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from monai.bundle import ConfigParser
from monai.data import CacheDataset, PersistentDataset
from monai.transforms import Compose
from PIL import Image

from cleft_bundle.data import RadiographStore, training_loader
from cleft_bundle.data.datasets.chexpert import FINDINGS
from cleft_bundle.data.pictures import keeping_pictures
from cleft_bundle.data.store.shelf import Entry
from cleft_bundle.progress import bar

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RELEASE = "CheXpert-v1.0-small"
_PART = 500  # images that a process writes at a time
_MAKERS = 2
_FED = 5_000  # images that are fed behind the first batch


def feeding(
    images: int = 190_000,
    image_size: int = 64,
    batch_size: int = 72,
    workers: Sequence[int] = (0, 2),
    compared: int = 4_000,
    folder: str | None = None,
    guessed: bool = False,
    out: str | None = None,
    seed: int = 0,
) -> None:
    """Make a CheXpert of grey JPEG files, fill its store, start again from it, and compare what feeds a training.

    Filling and starting again are in processes of their own. The latter begins behind its imports and has the first
    batch of an epoch at its end: the table is read, the patients are divided, all files are asked for changes. Memory
    is the sum over a process and its workers of what is theirs and their share of what several have (PSS). Afterwards
    the store, MONAI's CacheDataset and MONAI's PersistentDataset feed the same images through the same transforms by
    turns, the best of two epochs each: all of the training's, and those that are not random alone.

    Args:
        images: in the set.
        image_size: side in pixels, of the files and behind the transforms.
        batch_size: images per batch.
        workers: numbers of reading processes.
        compared: images of the comparison.
        folder: where the set is made, and found again; None: in a temporary folder.
        guessed: fill the store with numbers by chance in place of the files' pixels, which takes seconds: for what
            comes after it, where the hours of filling are not at hand.
        out: file to write the tables to as well.
        seed: of images and labels.
    """
    with _place(folder) as place:
        started = time.perf_counter()
        root = make_chexpert(place / "set", images, image_size, seed)
        lines = [f"{images} files of {image_size} px: made, or found, in {time.perf_counter() - started:.0f} s", ""]
        options = {"root": str(root), "cache_dir": str(place / "cache"), "size": image_size, "batch": batch_size}
        lines += ["| | seconds | peak memory, MB | images/s |", "| --- | --- | --- | --- |"]
        if guessed:
            _alone(partial(_guess, **options))
        for title in ("filling, and the first batch", "started again, and the first batch"):
            seconds, memory, speed = _alone(partial(_start, **options, num_workers=max(workers)))
            lines.append(f"| {title} | {seconds:.1f} | {memory:.0f} | {speed:.0f} |")
            print(lines[-1], file=sys.stderr)
        lines += ["", f"Feeding {min(compared, images)} of the images, images/s:", ""]
        lines += [
            "| transforms | workers | store | per process | CacheDataset | PersistentDataset | store / Persistent |"
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for row in _alone(partial(_compare, **options, counts=tuple(workers), compared=compared, place=str(place))):
            lines.append(row)
            print(row, file=sys.stderr)
    table = "\n".join(lines)
    print(table)
    if out:
        Path(out).write_text(table + "\n")


def make_chexpert(folder: Path, images: int, size: int, seed: int) -> Path:
    """Write a set with CheXpert's folders and table, by several processes; return its root.

    A patient has three studies of one frontal image each. A set that is whole is left as it is.
    """
    table = folder / "train.csv"
    if table.is_file():
        return folder
    parts = [range(start, min(start + _PART, images)) for start in range(0, images, _PART)]
    with ProcessPoolExecutor(_MAKERS, get_context("spawn")) as pool:
        work = pool.map(partial(_write_images, folder, size, seed), parts)
        for _ in bar(work, "making files", "part", total=len(parts), hidden=len(parts) < _MAKERS):
            pass
    random = np.random.default_rng(seed)
    labels = random.choice(["", "0.0", "1.0", "-1.0"], p=[0.6, 0.1, 0.25, 0.05], size=(images, len(FINDINGS)))
    with open(folder / "writing.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS])
        for number, row in enumerate(labels.tolist()):
            who = ["Female" if number % 2 else "Male", 20 + number % 70, "Frontal", "AP" if number % 3 else "PA"]
            writer.writerow([f"{RELEASE}/{_name(number)}", *who, *row])
    (folder / "writing.csv").rename(table)
    return folder


def _name(number: int) -> str:
    return f"train/patient{number // 3 + 1:05d}/study{number % 3 + 1}/view1_frontal.jpg"


def _write_images(folder: Path, size: int, seed: int, numbers: range) -> None:
    random = np.random.default_rng([seed, numbers.start])
    for number in numbers:
        path = folder / RELEASE / _name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)).resize((size, size)).save(path)


@contextmanager
def _place(folder: str | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def _alone(work: Callable[[], Any]) -> Any:
    """The result of work in a process of its own, whose workers start as the system has it."""
    with ProcessPoolExecutor(1, get_context("spawn"), _start_as_usual) as pool:
        return pool.submit(work).result()


def _start_as_usual() -> None:
    """Forget that this process was spawned; a pickled ``set_start_method`` would tell only a copy of its context."""
    set_start_method(None, force=True)


def _config(root: str, cache_dir: str, size: int, batch: int, num_workers: int) -> ConfigParser:
    """A training on the set, from the store."""
    config = ConfigParser()
    config.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "data_chexpert.json")])
    config.update({"bundle_root": str(CONFIGS.parent), "dataset_dir": root, "image_size": size, "batch_size": batch})
    config.update({"cache_dir": cache_dir, "cache": "store", "num_workers": num_workers})
    return config


def _start(**options: Any) -> tuple[float, float, float]:
    """Seconds until the first batch of a training, megabytes of all its processes, and images/s after it."""
    started = time.perf_counter()
    loader = _config(**options).get_parsed_content("train#dataloader")
    batches = iter(loader)
    first = next(batches)
    seconds, memory, count = time.perf_counter() - started, 0.0, len(first["name"])
    started = last = time.perf_counter()
    for batch in islice(batches, _FED // len(first["name"])):
        count += len(batch["name"])
        if time.perf_counter() - last > 1:
            memory, last = max(memory, _megabytes()), time.perf_counter()
    return seconds, max(memory, _megabytes()), (count - len(first["name"])) / (time.perf_counter() - started)


def _guess(**options: Any) -> None:
    """Fill the store of a set with numbers by chance, under the names of its images, with the metadata of the first."""
    config = _config(**options, num_workers=0)
    splits, transform = config.get_parsed_content("splits"), config.get_parsed_content("train#preprocessing")
    paths = [item["image"] for items in splits.values() for item in items]
    first = RadiographStore([{"image": paths[0]}], keeping_pictures(transform), options["cache_dir"], 0)
    (shelf,) = first.shelves
    _, meta = shelf.image(0)
    random = np.random.default_rng(0)
    with shelf.appending() as appender:
        for start in range(1, len(paths), _PART):
            names = first.names(paths[start : start + _PART])
            pixels = random.integers(0, 256, (len(names), *shelf.kind.shape)).astype(shelf.kind.dtype)
            appender.add([Entry(name, row, 0, 1, meta, None, 0) for name, row in zip(names, pixels, strict=True)])
        appender.settle()


def _megabytes() -> float:
    """Memory of this process and those below it, what several have counted once (PSS)."""
    own = psutil.Process()
    return sum(process.memory_full_info().pss for process in (own, *own.children(recursive=True))) / 1e6


def _compare(counts: Sequence[int], compared: int, place: str, **options: Any) -> list[str]:
    """Rows of the comparison."""
    config = _config(**options, num_workers=0)
    items = config.get_parsed_content("splits")["train"][:compared]
    tokenize = config.get_parsed_content("tokenize")
    rows = []
    for title, section in (("all of the training", "train"), ("not random", "validate")):
        files = Path(place, "persistent", section)
        shutil.rmtree(files, ignore_errors=True)
        transform: Compose = config.get_parsed_content(f"{section}#preprocessing")
        ways = {
            "store": RadiographStore(items, transform, options["cache_dir"]),
            "memory": CacheDataset(items, transform, num_workers=2, progress=False),
            "persistent": PersistentDataset(items, transform, files),
        }
        speeds = {(way, number): 0.0 for number in counts for way in ways}
        for _ in range(3):  # in the first one PersistentDataset fills its files
            for (way, number), best in speeds.items():
                speeds[way, number] = max(best, _speed(ways[way], tokenize, options["batch"], number))
        for number in counts:
            store, memory, persistent = (speeds[way, number] for way in ways)
            rows.append(
                f"| {title} | {number} | {store:.0f} | {store / max(number, 1):.0f} | {memory:.0f} | {persistent:.0f} "
                f"| {store / persistent:.1f} |"
            )
    return rows


def _speed(dataset: Any, tokenize: Any, batch_size: int, workers: int) -> float:
    """Images/s of an epoch, from its first batch on."""
    batches = iter(training_loader(dataset, tokenize, batch_size, workers, drop_last=False, captioned=False))
    first = len(next(batches)["name"])
    started = time.perf_counter()
    count = sum(len(batch["name"]) for batch in batches)
    return count / (time.perf_counter() - started) if count else first
