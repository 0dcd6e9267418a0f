"""Identical pictures: the same pixels under several patients, or in several splits.

A picture is known by a digest of its pixels as the reader gives them, before any other transform, keyed by the salt. It
is made where the image is read for a cache anyway, so that no image is read twice.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any, Final

import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import Compose, LoadImaged, MapTransform

from cleft_bundle.data.item import Item, changed
from cleft_bundle.data.pseudonyms import keyed_digest
from cleft_bundle.data.radiograph_reader import RadiographReader
from cleft_bundle.errors import BundleError, RadiographError, require_one_of
from cleft_bundle.progress import bar

logger = logging.getLogger(__name__)

#: Where an item holds the digest of its picture: "" for a blank one, which is equal to others by chance.
PICTURE: Final = "picture"
SHARED = ("warn", "drop", "error")

_BYTES = 8  # as of a patient
_THREADS = 4
_LONG = 50  # images to read take long enough for a progress bar
_EXAMPLES = 5


def picture_digest(image: np.ndarray | torch.Tensor) -> str:
    """The digest of an image [H, W] of the reader: 16 hexadecimal digits, "" where all its pixels are equal."""
    pixels = np.ascontiguousarray(torch.as_tensor(image).numpy(), dtype=np.float32)
    if not pixels.size or pixels.min() == pixels.max():
        return ""
    plain = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    return keyed_digest(plain, _BYTES)


class KeepPictured(MapTransform):
    """Keep the digest of an image that has just been read under :data:`PICTURE`.

    Args:
        keys: where the image is, as in MONAI's dictionary transforms.
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Add the digest to an item."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[PICTURE] = picture_digest(item[key])
        return item


def keeping_pictures(transform: Any) -> Compose:
    """The transforms with :class:`KeepPictured` behind the one that reads the image; as they are where none does.

    Args:
        transform: a Compose, or transforms in a sequence.
    """
    steps = (transform if isinstance(transform, Compose) else Compose(transform)).flatten()
    parts = list(steps.transforms)
    reading = next((place for place, step in enumerate(parts) if isinstance(step, LoadImaged)), None)
    if reading is not None and not any(isinstance(step, KeepPictured) for step in parts):
        steps.transforms = [*parts[: reading + 1], KeepPictured(parts[reading].keys[:1]), *parts[reading + 1 :]]
    return steps


def known_pictures(dataset: Any) -> list[Item]:
    """The items of a dataset with the digests that its cache, or they themselves, know by now; nothing is read for it.

    Args:
        dataset: of :func:`cleft_bundle.data.cached_dataset`, or one around it.

    Returns:
        the items, each with :data:`PICTURE` where it is known.
    """
    while not hasattr(dataset, "data") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    items = list(getattr(dataset, "data", ()))
    if isinstance(dataset, CacheDataset):
        known = [item.get(PICTURE) if isinstance(item, Mapping) else None for item in dataset._cache]
    elif hasattr(dataset, "pictures"):
        known = dataset.pictures()
    elif hasattr(dataset, "cached_picture"):
        known = [dataset.cached_picture(item) for item in items]
    else:
        known = [item.get(PICTURE) for item in items]
    known += [None] * (len(items) - len(known))
    return [
        item if digest is None else changed(item, picture=digest) for item, digest in zip(items, known, strict=True)
    ]


def read_pictures(items: Sequence[Item]) -> list[Item]:
    """The items with the digests of their pictures; those without one are read from their files.

    An image that cannot be read has none, as reading it later will say why.
    """

    def read(item: Item) -> Item:
        if PICTURE in item:
            return item
        try:
            reader = RadiographReader()
            image, _ = reader.get_data(reader.read(item["image"]))
        except (RadiographError, OSError):
            return item
        return changed(item, picture=picture_digest(image))

    with ThreadPoolExecutor(_THREADS) as pool:
        read_items = pool.map(read, items)
        return list(bar(read_items, "comparing pictures", "image", hidden=len(items) < _LONG, total=len(items)))


def shared_pictures(splits: Mapping[str, Sequence[Item]]) -> dict[str, Any]:
    """Count the pictures that several patients share.

    Args:
        splits: from splits to items, with :data:`PICTURE` where it is known.

    Returns:
        ``images`` and ``known``, how many images there are and of how many the picture is known; ``shared``, the
        pictures under more than one patient; ``images_sharing``, the images that show them; ``between``, from pairs
        such as "train and test" to the number of pictures that are on both sides under different patients; ``within``,
        from splits to those that several patients share in one; ``examples``: a few of them, as lists of
        [split, pseudonym].
    """
    places = _places(splits)
    shared = {digest: found for digest, found in places.items() if len({patient for _, patient in found}) > 1}
    between = {f"{one} and {other}": 0 for one, other in combinations(splits, 2)}
    within = dict.fromkeys(splits, 0)
    for found in shared.values():
        patients = defaultdict(set)
        for split, patient in found:
            patients[split].add(patient)
        for one, other in combinations([split for split in splits if split in patients], 2):
            between[f"{one} and {other}"] += len(patients[one] | patients[other]) > 1
        for split, several in patients.items():
            within[split] += len(several) > 1
    return {
        "images": sum(map(len, splits.values())),
        "known": sum(PICTURE in item for items in splits.values() for item in items),
        "shared": len(shared),
        "images_sharing": sum(map(len, shared.values())),
        "between": between,
        "within": within,
        "examples": [[list(place) for place in found] for found in list(shared.values())[:_EXAMPLES]],
    }


def describe_shared(counts: Mapping[str, Any]) -> str:
    """Result of :func:`shared_pictures` as a sentence, "" where nothing is shared."""
    if not counts["shared"]:
        return ""
    parts = [f"{count} between {pair}" for pair, count in counts["between"].items() if count]
    parts += [f"{count} within {split}" for split, count in counts["within"].items() if count]
    first = ", ".join(f"{patient} ({split})" for split, patient in counts["examples"][0])
    return (
        f"{counts['shared']} pictures are the same under different patients ({', '.join(parts)}; "
        f"the first by pseudonym: {first})"
    )


def part_pictures(splits: Mapping[str, list[Item]], mode: str) -> dict[str, list[Item]]:
    """Part splits that show the same pictures under different patients.

    Args:
        splits: from splits to items, in the order from the first to the last.
        mode: of :data:`SHARED`: ``warn`` does nothing here, as the pictures come to be known when the caches are
            filled; ``drop`` and ``error`` read the images that no picture is known of. ``drop`` leaves the images of
            the earlier split out, as with patients; images of one split may go on sharing a picture.

    Returns:
        the splits.

    Raises:
        BundleError: an unknown mode; pictures in several splits where that is an error.
    """
    require_one_of("shared_pictures", mode, SHARED)
    if mode == "warn":
        return dict(splits)
    known = {split: read_pictures(items) for split, items in splits.items()}
    counts = shared_pictures(known)
    if mode == "error" and any(counts["between"].values()):
        raise BundleError(f"{describe_shared(counts)}: mend the splits, or set shared_pictures to 'drop' or 'warn'")
    later: dict[str, set[str]] = defaultdict(set)
    kept: dict[str, list[Item]] = {}
    for split, items in reversed(known.items()):
        kept[split] = [item for item in items if not later[item.get(PICTURE) or ""] - {item["patient_id"]}]
        for item in items:
            if item.get(PICTURE):
                later[item[PICTURE]].add(item["patient_id"])
        if left_out := len(items) - len(kept[split]):
            logger.warning("%s: %d images left out, as a later split shows the same pictures under other patients",
                           split, left_out)  # fmt: skip
    return {split: kept[split] for split in splits}


def warn_of_shared(splits: Mapping[str, Sequence[Item]]) -> dict[str, Any]:
    """Say in the log which pictures several patients share; return what :func:`shared_pictures` does."""
    counts = shared_pictures(splits)
    if message := describe_shared(counts):
        leak = any(counts["between"].values())
        advice = ": what is measured on them is too good; --shared_pictures drop leaves them out" if leak else ""
        logger.warning("%s%s", message, advice)
    return counts


def _places(splits: Mapping[str, Iterable[Item]]) -> dict[str, list[tuple[str, str]]]:
    """From digests to the split and the patient of each image that shows it."""
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, items in splits.items():
        for item in items:
            if item.get(PICTURE):
                places[item[PICTURE]].append((split, item["patient_id"]))
    return places
