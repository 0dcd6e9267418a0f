"""A set's folder appears under its name only when it is complete."""

import multiprocessing
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cleft_bundle.errors import BundleError
from cleft_bundle.progress import bar, refresh_interval

README = (
    "Synthetic phantoms, no patients.\n\n"
    "Every picture below this folder was drawn by cleft_bundle.data.phantoms.{kind} from random numbers "
    "(patients={patients}, seed={seed}).\n"
    "They show how the software works. They say nothing about any person, disease or device.\n"
)

WORTH_A_POOL = 150  # patients; starting processes costs the drawing of about fifty
R = TypeVar("R")


def is_phantom(dataset_dir: str | Path) -> bool:
    """True where a set's folder holds phantoms of this package, which its README.txt says."""
    note = Path(dataset_dir) / "README.txt"
    return note.is_file() and note.read_text(encoding="utf-8", errors="replace").startswith(README.partition("\n")[0])


def build(kind: str, version: int, root: str, patients: int, seed: int, fill: Callable[[Path], None]) -> str:
    """Write a phantom set once, and never leave half of it under its final name.

    The set is written to a sibling folder that is renamed at the end. Two processes may do this at the same time: the
    first to finish wins, and as the files depend on nothing but the arguments, the loser's copy is simply removed.

    Args:
        kind: "chest" or "breast".
        version: of the drawing and the files; a set of another version is another folder.
        root: folder that the set's folder is made in; created if it does not exist.
        patients: how many phantom patients, at least 5, so that each split can have one.
        seed: first half of each patient's random seed, not negative.
        fill: writes all files of the set into the folder it is given.

    Returns:
        The path of the complete set's folder.

    Raises:
        BundleError: a number is out of range, or the folder cannot be written.
    """
    if patients < 5 or seed < 0:
        raise BundleError(
            f"{kind} phantoms: patients must be 5 or more and seed 0 or more, not patients={patients}, seed={seed}"
        )
    final = Path(root) / f"phantom_{kind}_v{version}_n{patients}_s{seed}"
    if final.is_dir():
        return str(final)
    partial = final.with_name(f".{final.name}.partial-{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        fill(partial)
        (partial / "README.txt").write_text(README.format(kind=kind, patients=patients, seed=seed), encoding="utf-8")
        try:
            os.replace(partial, final)
        except OSError:
            if not final.is_dir():
                raise
    except OSError as error:
        raise BundleError(f"{kind} phantoms: cannot write below {root}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(final)


def draw_patients(draw: Callable[[int], R], patients: int, kind: str) -> Iterator[R]:
    """Draw phantom patients, on all cores where there are many of them, and show how many are done.

    Args:
        draw: draws and writes the patient of a number, from 0; it must pickle and depend on nothing but the number.
        patients: how many.
        kind: "chest" or "breast".

    Yields:
        what ``draw`` returns, in the order of the numbers.
    """
    shown: dict[str, Any] = {"total": patients, "maxinterval": refresh_interval()}
    what = f"drawing {kind} phantoms"
    cores = os.cpu_count() or 1
    if patients < WORTH_A_POOL or cores == 1 or multiprocessing.current_process().daemon:
        yield from bar(map(draw, range(patients)), what, "patient", **shown)
        return
    # spawned, not forked: the parent may hold threads of PyTorch
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from bar(pool.map(draw, range(patients), chunksize=8), what, "patient", **shown)
