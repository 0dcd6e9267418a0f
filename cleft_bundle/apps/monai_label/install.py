"""The console command ``cleft_monai_label``: the application's folder where a server is to find it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import fire

from cleft_bundle.errors import BundleError
from cleft_bundle.files import replacing

_SOURCE = Path(__file__).resolve().parent
_PARTS = ("main.py", "lib")


def install(folder: str, link: bool = False) -> Path:
    """Make the folder that ``monailabel start_server --app`` takes; the server adds ``model``, ``logs`` and ``bin``.

    Args:
        folder: receives the application; it may exist, without the application's files.
        link: link to the files of the installed package, which an upgrade then reaches, in place of copying them.

    Returns:
        the folder.

    Raises:
        BundleError: where there is an application already.
    """
    target = Path(folder).expanduser().absolute()
    if there := [part for part in _PARTS if (target / part).exists() or (target / part).is_symlink()]:
        raise BundleError(f"{target} has {' and '.join(there)} already: remove them, or name another folder")
    target.mkdir(parents=True, exist_ok=True)
    for part in reversed(_PARTS):  # main.py last: whoever finds it finds everything
        with replacing(target / part) as temporary:
            if link:
                temporary.symlink_to(_SOURCE / part)
            elif part == "lib":
                shutil.copytree(_SOURCE / part, temporary, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(_SOURCE / part, temporary)
    return target


def _command(folder: str, link: bool = False) -> None:
    """Put the MONAI Label application into a folder.

    Args:
        folder: such as monai_label_app.
        link: link to the installed package in place of copying it.
    """
    try:
        target = install(folder, link)
    except BundleError as error:
        sys.exit(f"error: {error}")
    print(f"monailabel start_server --app {target} --studies IMAGES --conf model MODEL.pt")


def main() -> None:
    """Run the command."""
    fire.Fire(_command)
