"""A machine that has nothing of this checkout: an environment with the wheel alone, and the zip unpacked elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Elsewhere:
    """Where the wheel is installed.

    Args:
        folder: an environment of its own, which sees the dependencies of this one.
    """

    folder: Path

    @property
    def site(self) -> Path:
        """Where the package is."""
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(self, *words: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """``python WORDS`` in a folder; no path of this process goes along."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        python = str(self.folder / "bin" / "python")
        done = subprocess.run(
            [python, "-W", "ignore", *map(str, words)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done


def install(wheel: Path, folder: Path) -> Elsewhere:
    """Install a wheel by pip, without network and beside the dependencies that are here."""
    venv.create(folder, with_pip=False)
    machine = Elsewhere(folder)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(machine.site)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    # the dependencies of this environment, but not its editable install
    outer = [Path(path) for path in sys.path if path.endswith("site-packages")]
    for entry in (child for path in outer for child in path.iterdir()):
        if "cleft_bundle" not in entry.name and not (machine.site / entry.name).exists() and entry.suffix != ".pth":
            (machine.site / entry.name).symlink_to(entry)
    return machine
