"""The command line of ``cleft COMMAND``: words of a shell become arguments of a function, wrong ones a line."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import fire

from cleft_bundle.errors import UsageError, nearest

_SECTION = re.compile(r"^(Returns|Raises|Source)\b.*", re.MULTILINE | re.DOTALL)
_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|``(.+?)``")


def call(name: str, function: Callable[..., Any], words: Sequence[str]) -> None:
    """Call a function with the words of a command line, and print what it returns.

    Fire tells positional words from ``--option VALUE`` and ``--option=VALUE``. Every value is the text that was typed,
    until the function's annotation makes a number, a switch or a list of it; values of ``**options: Any`` are read as
    MONAI reads overrides of a config.

    Args:
        name: of the command, for messages.
        function: what does its work.
        words: of the command line, without the command's name.

    Raises:
        UsageError: an option that the function does not take, one argument too many, one that is missing, or a value
            of the wrong kind.
    """

    def gather(*positional: str, **options: str) -> Any:
        arguments = _bind(name, function, positional, options)
        return function(*arguments.args, **arguments.kwargs)

    fire.decorators.SetParseFn(str)(gather)  # a folder may be called 2020, or a#b, which Fire would evaluate
    fire.Fire(gather, command=_gathered(name, function, words), name=f"cleft {name}")


def _gathered(command: str, function: Callable[..., Any], words: Sequence[str]) -> list[str]:
    """The words of a command line with the values of a repeated list as one list; of others Fire keeps the last."""
    lists = [key for key, hint in get_type_hints(function).items() if hint == Sequence[str]]
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    place = 0
    while place < len(words):
        option, equals, value = words[place].partition("=")
        key, width = option[2:].replace("-", "_"), 1
        if option.startswith("--") and key:
            if not equals and place + 1 < len(words) and not words[place + 1].startswith("--"):
                value, width, equals = words[place + 1], 2, "="
            if key in found and key not in lists:
                raise UsageError(f"cleft {command}: --{key} is given twice")
            if equals and key in lists:
                found.setdefault(key, []).append(value)
                place += width
                continue
            found[key] = [value]
        rest += words[place : place + width]
        place += width
    joined = {key: values[0] if len(values) == 1 else repr(values) for key, values in found.items() if key in lists}
    return [*rest, *(f"--{key}={value}" for key, value in joined.items())]


def _bind(
    command: str, function: Callable[..., Any], positional: Sequence[str], options: dict[str, str]
) -> inspect.BoundArguments:
    signature, hints = inspect.signature(function), get_type_hints(function)
    _check(command, signature, positional, options)
    bound = signature.bind(*positional, **options)
    for key, given in bound.arguments.items():
        kind, hint = signature.parameters[key].kind, hints.get(key)
        if kind is inspect.Parameter.VAR_KEYWORD:
            bound.arguments[key] = {option: _value(option, hint, text) for option, text in given.items()}
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[key] = _value(key, hint, given)
    return bound


def _check(command: str, signature: inspect.Signature, positional: Sequence[str], options: dict[str, str]) -> None:
    parameters = signature.parameters.values()
    kinds = {parameter.kind for parameter in parameters}
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    places = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for option in options:
            if option not in named:
                raise UsageError(f"cleft {command}: there is no option --{option}{nearest(option, named)}")
    if inspect.Parameter.VAR_POSITIONAL not in kinds and len(positional) > len(places):
        raise UsageError(f"cleft {command}: {positional[len(places)]!r} is one argument too many")
    for parameter in places[: len(positional)]:
        if parameter.name in options:
            raise UsageError(f"cleft {command}: {parameter.name} is given twice")
    for parameter in places[len(positional) :]:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise UsageError(f"cleft {command}: {parameter.name.upper()} is missing; see cleft {command} --help")


def _value(option: str, hint: Any, text: str) -> Any:
    """A word as the annotation of its parameter wants it."""
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"--{option}: expected true or false, got {text!r}")
        return text.lower() == "true"
    if hint is int:
        if not re.fullmatch(r"[+-]?\d+", text):
            raise UsageError(f"--{option}: expected a whole number, got {text!r}")
        return int(text)
    if hint == Sequence[str]:
        return _names(text)
    if hint is Any:
        # it brings MONAI, which the other commands may do without
        return import_module("cleft_bundle.literals").read_override(option, text)
    return text


def _names(text: str) -> list[str]:
    """The names of a list as it is typed: ``a,b``, ``[a,b]`` or ``['a','b']``; a file's name may hold a comma."""
    if Path(text).exists():
        return [text]
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        found = text.strip("[] ").split(",")
    return [str(name).strip() for name in (found if isinstance(found, list | tuple) else [text])]


def help_of(name: str, function: Callable[..., Any]) -> str:
    """Help of a command: its usage, and the docstring of its function."""
    usage = [f"usage: cleft {name}"]
    for parameter in inspect.signature(function).parameters.values():
        word = parameter.name.upper()
        if parameter.kind is parameter.VAR_POSITIONAL:
            usage.append(f"{word}...")
        elif parameter.kind is parameter.VAR_KEYWORD:
            usage.append("[--OPTION VALUE ...]")
        elif parameter.default is parameter.empty:
            usage.append(word)
        else:
            usage.append(f"[--{parameter.name} {word}]")
    text = _SECTION.sub("", inspect.cleandoc(function.__doc__ or "")).rstrip()
    text = _ROLE.sub(lambda found: found[1] or found[2], text)
    return "\n\n".join([" ".join(usage), text])


def summary_of(module: str) -> str:
    """The first line of a command's docstring, read without importing what the command needs."""
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == module)
    return (ast.get_docstring(function) or "").splitlines()[0].rstrip(".")
