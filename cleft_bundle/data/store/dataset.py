"""The dataset of a store: every image after its deterministic transforms, once on a machine."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import Dataset
from monai.transforms import Compose

from cleft_bundle.data.cache import file_identity, is_random, made_by, unpacked
from cleft_bundle.data.image_counts import DOUBTS, warn_of
from cleft_bundle.data.item import Item
from cleft_bundle.data.pseudonyms import digests
from cleft_bundle.data.store.filling import Reading, alone, fill
from cleft_bundle.data.store.shelf import NAME_BYTES, Kind, Shelf, from_json
from cleft_bundle.data.tolerant_dataset import reading_workers

logger = logging.getLogger(__name__)

#: What the network wants of an image and no store keeps, by names of MONAI's and of :mod:`cleft_bundle.transforms`.
FOR_THE_NETWORK = frozenset({"NormalizeIntensityd", "RepeatChanneld", "GreyToRGBd"})
_FORMAT = "store 1"
_SUFFIX = ".store"


class RadiographStore(Dataset):
    """Images in one memory-mapped array, filled once by several processes, shared by all without copies.

    What is kept are the results of the transforms before the first random one and before those of
    :data:`FOR_THE_NETWORK`, for ``{key: path}`` alone; captions, labels and all else of an item are never in it.
    Values are kept in 8 bits where the file has no more, else in 16: at most half a step, 1/510 or 1/131070 for values
    of 0 to 1, from their own (:func:`cleft_bundle.data.store.shelf.quantised`). Metadata are those of
    :class:`cleft_bundle.data.RadiographCache`.

    The folder's name covers the transforms and the versions, an image's name in it the file's path, size and time of
    change when the dataset is made; both are hashes keyed by the salt. Whatever changes is therefore filled in anew.
    Processes that fill one store take turns; a store that is whole may lie on a disk that cannot be written to.

    Args:
        data: items, each with the path of an image file at `key`.
        transform: a Compose, or transforms in a sequence.
        cache_dir: folder of the stores; made where it does not exist.
        num_workers: processes that fill; None: all cores but one.
        progress: show a bar meanwhile; None: for many images.
        key: where an item holds the path.

    Raises:
        BundleError: as of :func:`cleft_bundle.data.store.filling.fill`, or where the settings of a transform cannot be
            told.
    """

    def __init__(
        self,
        data: Sequence[Item],
        transform: Any,
        cache_dir: str | Path,
        num_workers: int | None = None,
        progress: bool | None = None,
        key: str = "image",
    ) -> None:
        flat = (transform if isinstance(transform, Compose) else Compose(transform)).flatten()
        super().__init__(data, flat)
        self.key, self.num_workers, self.progress = key, num_workers, progress
        self.kept = kept_steps(flat)
        self.made_by = made_by(flat.transforms[: self.kept], key)
        self.folder = Path(cache_dir).expanduser() / f"{digests([self.made_by + _FORMAT], 8)[0]}{_SUFFIX}"
        self.shelves: list[Shelf] = []
        self.places = np.zeros((0, 2), dtype=np.int32)
        self.set_data(data)

    def set_data(self, data: Sequence[Any]) -> None:
        """Change the items; those that the store does not have are filled in."""
        self.data = data
        paths = [str(item[self.key]) for item in data]
        names = self.names(paths)
        if missing := self._find(names):
            if not self.folder.exists():
                self._tell_of_others()
            with alone(self.folder):
                if missing := self._find(names):  # another process may have filled them meanwhile
                    self._fill(missing, dict(zip(names, paths, strict=True)))
                    self._find(names)
        warn_of(self._doubts(), len(paths))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()  # shelves leave their open arrays behind

    def _transform(self, index: int) -> Any:
        item: dict[str, Any] = {**self.data[index]}
        shelf, place = self.places[index]
        image, meta = self.shelves[shelf].image(place)
        item[self.key] = unpacked({"image": image, **from_json(meta)}, str(item[self.key]))
        return self.transform(item, start=self.kept)

    def names(self, paths: Iterable[str]) -> list[bytes]:
        """Names of the images of files in the store."""
        return [bytes.fromhex(name) for name in digests(map(file_identity, paths), NAME_BYTES)]

    def pictures(self) -> list[str | None]:
        """The digest of each item's picture, None where it is not known."""
        records = [shelf.records[["picture", "pictured"]] for shelf in self.shelves]
        found = [records[shelf][place] for shelf, place in self.places.tolist()]
        return [bytes(record["picture"]).decode() if record["pictured"] else None for record in found]

    def _find(self, names: Sequence[bytes]) -> list[bytes]:
        """Look up where the images lie; return the names of those that are not there."""
        self.shelves = [Shelf(self.folder, Kind.of(path.stem)) for path in sorted(self.folder.glob("*.index"))]
        known: dict[bytes, tuple[int, int]] = {}
        for number, shelf in enumerate(self.shelves):
            known |= {name: (number, place) for place, name in enumerate(shelf.names())}
        missing = list(dict.fromkeys(name for name in names if name not in known))
        if not missing:
            self.places = np.array([known[name] for name in names], dtype=np.int32).reshape(-1, 2)
        return missing

    def _fill(self, missing: Sequence[bytes], paths: Mapping[bytes, str]) -> None:
        steps = Compose(self.transform.transforms[: self.kept])
        reading = Reading(missing, [paths[name] for name in missing], steps, self.key)
        workers = reading_workers(alone=True) if self.num_workers is None else self.num_workers
        hidden = None if self.progress is None else not self.progress
        fill(self.folder, {shelf.kind: shelf for shelf in self.shelves}, reading, workers, hidden)

    def _tell_of_others(self) -> None:
        """Say that stores lie here which other transforms, versions or salts have made."""
        others = sorted(self.folder.parent.glob(f"*{_SUFFIX}"))
        if others:
            size = sum(file.stat().st_size for folder in others for file in folder.glob("*") if file.is_file())
            logger.info(
                "a new store is filled; %d others in %s, of other transforms, versions or salts, take %.1f GB and "
                "may be deleted", len(others), self.folder.parent, size / 1e9)  # fmt: skip

    def _doubts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for number, shelf in enumerate(self.shelves):
            bits = shelf.records["doubts"][self.places[self.places[:, 0] == number, 1]]
            counts.update({name: int((bits >> place & 1).sum()) for place, name in enumerate(DOUBTS)})
        return counts


def kept_steps(transform: Compose) -> int:
    """Number of the first transforms that a store keeps the results of."""
    for place, step in enumerate(transform.transforms):
        if is_random(step) or type(step).__name__ in FOR_THE_NETWORK:
            return place
    return len(transform.transforms)
