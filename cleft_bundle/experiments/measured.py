"""Run a command, and write what it took: ``python -S measured.py FILE COMMAND ...``.

A program of its own that imports next to nothing: on Linux the memory of a process that starts another one counts as
the other one's too, and that of ``cleft experiment`` is not small. The command is ended once the standard input of
this program is closed, and so never outlives whoever started it.
"""

import json
import os
import resource
import subprocess
import sys
import threading


def main() -> int:
    """Run it; the exit code, negative for the signal that has ended it as :mod:`subprocess` has it."""
    place, *command = sys.argv[1:]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - what a plan's job names
    threading.Thread(target=_end_with_starter, args=(process,), daemon=True).start()
    code = process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {
        "code": code,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    with open(place, "w", encoding="utf-8") as file:
        json.dump(spent, file)
    return 0


def _end_with_starter(process: "subprocess.Popen[bytes]") -> None:
    os.read(0, 1)  # nothing is ever written: it returns once the other end is closed
    process.terminate()


if __name__ == "__main__":
    sys.exit(main())
