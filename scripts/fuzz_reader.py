"""Read thousands of damaged copies of real DICOM files: each must become an image or a RadiographError, alone.

No message, warning, log record or chained exception may hold a value of the header: each copy carries canaries, texts
that stand in elements where a name, a number or a code belongs. Compressed images and their headers are made to
contradict each other.

python scripts/fuzz_reader.py --mutations 10000

The files come from the package pydicom-data, from pydicom itself, and from the folders given. Every damaged copy
depends on the seed and its own number alone, and can be kept by `--keep NUMBER`. Linux only: /proc tells the memory.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import multiprocessing
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import fire
import numpy as np
from benchmarks.memory import forget_peak, megabytes
from tqdm import tqdm

from cleft_bundle.data import RadiographReader
from cleft_bundle.errors import BundleError, RadiographError

PACKAGES = ("data_store/data", "pydicom/data/test_files")
MEGABYTE = 2**20
LARGEST_FILE = 8 * MEGABYTE
HARD_LIMIT = 2048 * MEGABYTE  # of memory that a worker may ask for beyond what it has at its start
CANARY = b"CANARY7731"
SYNTAXES = [
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"),
    *("1.2.840.10008.1.2.5", *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 201, 203))),
]
# Elements that decide on how much is read and how: group and element
TAGS = [
    *((0x0028, element) for element in (2, 4, 6, 8, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103, 0x120, 0x1050, 0x1051)),
    *((0x0028, element) for element in (0x1052, 0x1053, 0x1056, 0x3000, 0x3002, 0x3006, 0x3010)),
    *((0x7FE0, 0x10), (2, 0x10), (2, 0), (0x18, 0x1164), (0x18, 0x1114), (0x54, 0x220), (8, 0x68), (8, 0x16)),
]
# Elements of which header and compressed image both speak: samples, rows, columns, bits, sign
SHARED = [(0x0028, element) for element in (2, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103)]


def main(
    *folders: str,
    mutations: int = 10_000,
    seed: int = 0,
    timeout: float = 30,
    most_memory: int = 1024,
    most_seconds: float = 5,
    keep: int = -1,
) -> None:
    """Read damaged files and say what came of them; the exit code is 1 if anything did that must not.

    Args:
        folders: more DICOM files to damage, besides those of pydicom and pydicom-data.
        mutations: number of damaged files.
        seed: what they depend on.
        timeout: seconds after which a read counts as hanging.
        most_memory: megabytes by which the resident memory of the reading process may exceed that after its imports.
        most_seconds: of the processor's time that one read may take.
        keep: write the damaged file of this number to the working directory, and read none.

    Raises:
        BundleError: where there is no DICOM file to damage.
    """
    files = [file for folder in _folders(folders) for file in sorted(folder.rglob("*.dcm"))]
    files = [file for file in files if file.stat().st_size <= LARGEST_FILE]
    if not files:
        raise BundleError("no DICOM file found: pip install pydicom-data, or name a folder of them")
    if keep >= 0:
        Path(f"damaged_{keep}.dcm").write_bytes(damage(files, seed, keep)[1])
        return
    start = time.perf_counter()
    outcomes: Counter[str] = Counter()
    failures, highest, slowest = [], 0, 0.0
    worker = Worker(files, seed)
    for number in tqdm(range(mutations), disable=not sys.stderr.isatty()):
        outcome, peak, seconds = worker.read(number, timeout)
        highest, slowest = max(highest, peak), max(slowest, seconds)
        if outcome in ("image", "RadiographError") and peak - worker.baseline > most_memory:
            outcome = f"more than {most_memory} MB"
        if outcome in ("image", "RadiographError") and seconds > most_seconds:
            outcome = f"more than {most_seconds:g} s"
        outcomes[outcome.partition(":")[0]] += 1
        if outcome not in ("image", "RadiographError"):
            failures.append(f"no. {number}, from {damage(files, seed, number)[0].name}: {outcome}, {peak} MB")
    worker.stop()
    print(f"{mutations} damaged copies of {len(files)} files, seed {seed}, {time.perf_counter() - start:.0f} s")
    memory = f"peak memory {highest} MB, of which {worker.baseline} MB before the first file"
    print(f"{memory}; slowest read {slowest:.1f} s of the processor's time")
    for outcome, count in outcomes.most_common():
        print(f"{count:6d} {outcome}")
    print(*failures, sep="\n")
    if failures:
        sys.exit(1)


def _folders(more: tuple[str, ...]) -> list[Path]:
    """The folders of the installed packages, and those given."""
    found = []
    for place in PACKAGES:
        package, _, below = place.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            found.append(Path(spec.submodule_search_locations[0], below))
    return [*found, *map(Path, more)]


def damage(files: list[Path], seed: int, number: int) -> tuple[Path, bytes]:
    """Choose a file and damage a copy of it in one to three ways."""
    rng = random.Random(f"{seed}:{number}")  # noqa: S311  # nothing here is secret
    file = rng.choice(files)
    data = bytearray(file.read_bytes())
    for _ in range(rng.randint(0, 2)):
        _place_canary(data, rng)
    for _ in range(rng.randint(1, 3)):
        rng.choice(WAYS)(data, rng)
    return file, bytes(data)


def _place_canary(data: bytearray, rng: random.Random) -> None:
    """Overwrite the value of an element of the header by a text, as long as the value is."""
    places = [
        place for place in range(132, min(len(data), 4000) - 8) if data[place + 1] == 0 and data[place] in _GROUPS
    ]
    if places:
        place = rng.choice(places)
        explicit = data[place + 4 : place + 6].isalpha()
        length = struct.unpack_from("<H" if explicit else "<I", data, place + (6 if explicit else 4))[0]
        if len(CANARY) <= length <= 64:
            data[place + 8 : place + 8 + length] = CANARY.ljust(length)


_GROUPS = (0x08, 0x10, 0x18, 0x20, 0x28)


def _contradict(data: bytearray, rng: random.Random) -> None:
    """Change what the header or the compressed image says of size, samples, depth and sign, and not the other."""
    frame = max(data.find(b"\xff\x4f\xff\x51"), -1)
    if frame >= 0 and rng.random() < 0.5:  # JPEG 2000: precision and sign, or size, or components
        place, value = rng.choice(((42, rng.choice((7, 9, 11, 15, 0x8B, 0x8F))), (11, rng.randrange(256)), (41, 3)))
        data[frame + place : frame + place + 1] = bytes([value])
        return
    for marker in rng.sample((b"\xff\xc0", b"\xff\xc1", b"\xff\xc3", b"\xff\xf7"), 4):
        frame = data.find(marker)
        if frame >= 0 and rng.random() < 0.5:  # JPEG and JPEG-LS: precision, rows, columns, components
            data[frame + 4 + rng.choice((0, 0, 1, 3, 5))] = rng.choice((1, 2, 3, 8, 10, 12, 16))
            return
    group, element = rng.choice(SHARED)
    place = data.find(struct.pack("<HH", group, element))
    if place >= 0:
        value = rng.choice((0, 1, 3, 7, 8, 9, 10, 11, 12, 13, 15, 16, 32))
        data[place + 8 : place + 10] = struct.pack("<H", value)


def _place(data: bytearray, rng: random.Random) -> int:
    """A position: in the header as often as anywhere else."""
    return rng.randrange(max(1, min(len(data), rng.choice((400, 4000, len(data), len(data))))))


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8, 64))):
        place = _place(data, rng)
        data[place : place + 1] = bytes([rng.randrange(256)])


def _change_element(data: bytearray, rng: random.Random) -> None:
    """Overwrite the VR, length or value of an element that matters."""
    group, element = rng.choice(TAGS)
    place = data.find(struct.pack(rng.choice("<<<>") + "HH", group, element))
    if place >= 0:
        place += rng.choice((4, 6, 8, 8, 8, 8, 10, 12))
        value = rng.choice((0, 1, 2, 3, 15, 16, 17, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, rng.getrandbits(32)))
        size = rng.choice((1, 2, 2, 4))
        data[place : place + size] = struct.pack("<I", value)[:size]


def _change_syntax(data: bytearray, rng: random.Random) -> None:
    place = data.find(b"1.2.840.10008.1.2", data.find(b"\x02\0\x10\0"))
    if 0 <= place < 2000:
        new = rng.choice(SYNTAXES).encode().ljust(22, b"\0")
        length = struct.unpack_from("<H", data, place - 2)[0]
        data[place : place + length] = new[:length]


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _cut_out(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 2, 4, 100, 5000))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    place, size = _place(data, rng), rng.choice((1, 2, 8, 100, 5000))
    data[place:place] = data[place : place + size] * rng.choice((1, 2, 50))


def _blank(data: bytearray, rng: random.Random) -> None:
    place, size = _place(data, rng), rng.choice((2, 16, 500))
    data[place : place + size] = bytes([rng.choice((0, 255))]) * len(data[place : place + size])


WAYS = (
    *(_flip_bits, _flip_bits, _change_element, _change_element, _change_syntax, _contradict, _contradict, _contradict),
    *(_truncate, _cut_out, _repeat, _blank),
)


class Worker:
    """A process that reads damaged files, and is replaced when one of them kills it or keeps it busy.

    Args:
        files: the files to damage.
        seed: first half of what the damage depends on.
    """

    def __init__(self, files: list[Path], seed: int) -> None:
        self.files = files
        self.seed = seed
        self.baseline = 0
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.files, self.seed), daemon=True)
        self.process.start()
        theirs.close()
        self.baseline = self.pipe.recv()

    def read(self, number: int, timeout: float) -> tuple[str, int, float]:
        """Read one damaged file.

        Returns:
            what came of it, the highest memory meanwhile in megabytes, and the processor's time in seconds.
        """
        self.pipe.send(number)
        try:
            if self.pipe.poll(timeout):
                return self.pipe.recv()
            outcome = f"no answer within {timeout:g} s"
        except EOFError:
            self.process.join()
            outcome = f"the process ended with code {self.process.exitcode}"
        self.stop()
        self._begin()
        return outcome, 0, 0.0

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, files: list[Path], seed: int) -> None:
    """Read the damaged files whose numbers come through the pipe."""
    sys.stderr = open("/dev/null", "w")  # noqa: SIM115  # libraries report what they find in damaged files
    limit = megabytes("VmSize") * MEGABYTE + HARD_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    log = io.StringIO()
    logging.basicConfig(stream=log, level=logging.INFO)
    pipe.send(megabytes("VmRSS"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged.dcm")
        while True:
            path.write_bytes(damage(files, seed, pipe.recv())[1])
            forget_peak()
            log.truncate(0)
            start = time.process_time()
            outcome = _outcome(str(path), log)
            pipe.send((outcome, megabytes("VmHWM"), time.process_time() - start))


def _outcome(path: str, log: io.StringIO) -> str:
    """Read one file; say what came of it, or what came with it and must not."""
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image, meta = RadiographReader().get_data(RadiographReader().read(path))
            right = image.dtype == np.float32 and image.ndim == 2 and image.min() >= 0 and image.max() <= 1
            outcome = "image" if right else "an image of another kind"
            said.append(repr(meta))
        except RadiographError as e:
            named = path in str(e) and "\n" not in str(e)
            outcome = "RadiographError" if named else f"an error without the file's name: {e}"
            if e.__cause__ or e.__context__:
                outcome = "an exception is chained to the error"
            said.append("".join(traceback.format_exception(e)))
        except BaseException as e:
            outcome = f"{type(e).__name__}: {e}"
    said += [str(w.message) for w in caught] + [log.getvalue()]
    return f"a value of the header: {said}" if CANARY.decode() in "".join(said) else outcome


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        sys.exit(f"error: {error}")
