"""The console command ``cleft``, and ``python -m cleft_bundle``: one module per command, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

from cleft_bundle import __version__
from cleft_bundle.commands.command_line import call, help_of, summary_of
from cleft_bundle.errors import UsageError, cause_of, nearest
from cleft_bundle.secrets import masked

#: Each command and the module of this package that holds it, as a function of the module's name.
COMMANDS = {
    "init": "init",
    "download": "download",
    "inspect": "inspect",
    "preview": "preview",
    "describe": "describe",
    "gallery": "gallery",
    "predict": "predict",
    "build": "build",
    "import": "import_",
    "report": "report",
    "experiment": "experiment",
    "export": "export",
    "register": "register",
    "package": "package",
}
_HELP = ("--help", "-h")


def main() -> None:
    """Run a command; what a user can mend is one line: exit code 2 where the command line is wrong, else 1."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name may be no text of the console's
    try:
        _run(sys.argv[1:])
    except Exception as error:
        cause = cause_of(error)
        if cause is None:
            import_module("cleft_bundle.config").report_errors()  # masks credentials in the traceback
            raise
        print(f"error: {masked(str(cause))}", file=sys.stderr)
        sys.exit(2 if isinstance(cause, UsageError) else 1)


def _run(words: list[str]) -> None:
    name, *rest = words or ["--help"]
    if name in (*_HELP, "help"):
        print(_overview())
    elif name == "--version":
        print(__version__)
    elif name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}{nearest(name, COMMANDS)}; cleft --help lists them")
    else:
        module = COMMANDS[name]
        function = getattr(import_module(f"{__name__}.{module}"), module)
        if set(_HELP) & set(rest):
            print(help_of(name, function))
        else:
            call(name, function, rest)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary_of(module)}" for name, module in COMMANDS.items()]
    return "\n".join(
        [
            f"cleft {__version__}: CLEFT for chest X-rays and mammograms, as a MONAI bundle. Not a medical device.",
            "",
            "usage: cleft COMMAND ...; cleft COMMAND --help says what it takes",
            "",
            *lines,
            "",
            "Training, evaluation and inference run by MONAI: python -m monai.bundle run --config_file configs/...",
        ]
    )
