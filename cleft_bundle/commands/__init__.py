"""The console command ``cleft_bundle``, also called ``cleft``: one module a command."""

from __future__ import annotations

import sys

import fire

from cleft_bundle.commands.experiment import experiment
from cleft_bundle.commands.init import init
from cleft_bundle.commands.inspect import inspect
from cleft_bundle.commands.report import report
from cleft_bundle.errors import BundleError

COMMANDS = {"experiment": experiment, "init": init, "inspect": inspect, "report": report}


def main() -> None:
    """Run a command; what a user can mend is one line, and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name may be no text of the console's
    for command in COMMANDS.values():
        fire.decorators.SetParseFn(str)(command)  # a folder may be called 2020, or a#b, which fire would evaluate
    try:
        fire.Fire(COMMANDS, name="cleft_bundle")
    except BundleError as error:
        sys.exit(f"error: {error}")
