"""Texts in MONAI's config language, in which ``#``, ``@``, ``%`` and ``$`` mean something, kept as they were written.

MONAI writes ``::`` for every ``#`` in every text of a config, so that a folder ``set#1`` becomes ``set::1``; Fire,
which reads the command line, takes ``#`` for the beginning of a comment. As :func:`literal` a text passes MONAI.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from types import FrameType
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.scripts import create_workflow

from cleft_bundle.errors import BundleError

#: Ids whose values are names, never numbers, lists or expressions that Fire may read in them.
_NAMES = re.compile(r"(?:.*[_#])?(?:dir|path|file|name|source|uri|checkpoint)")
_REFERENCE = re.compile(r"@\w[\w:#]*")
LANGUAGE = ("$", "@", "%")  # what expressions, references and macros begin with


def literal(content: Any) -> str:
    """A config value that MONAI reads as exactly this text, or other JSON value.

    Args:
        content: a text, or nested lists and mappings of texts and numbers.

    Returns:
        an expression, in which no character is left that MONAI would rewrite.
    """
    return "$" + re.sub("[#@%]", lambda found: f"\\x{ord(found[0]):02x}", ascii(content))


def read_override(key: str, text: str) -> Any:
    """An override as it was typed in a shell, as MONAI's commands read it, but that names stay what they are.

    Args:
        key: the config id.
        text: a JSON or Python value, a name of anything, or what the config language evaluates.

    Returns:
        the value for MONAI.
    """
    if text.startswith(LANGUAGE):
        return text
    if _NAMES.fullmatch(key) or "#" in text:
        return literal(text)
    return DefaultParseValue(text)


def as_written(config: Any) -> Any:
    """A config with what :func:`literal` has made in it as it was."""
    if isinstance(config, Mapping):
        return {key: as_written(value) for key, value in config.items()}
    if isinstance(config, list):
        return [as_written(value) for value in config]
    if isinstance(config, str) and config.startswith(("$'", '$"', "${")):
        with suppress(SyntaxError, ValueError):
            content = ast.literal_eval(config[1:])
            return content if literal(content) == config else config
    return config


def keep_literals(workflow: ConfigWorkflow, words: list[str]) -> list[str]:
    """Put the texts of a workflow's config files and overrides that MONAI or Fire has rewritten back into its config.

    References, expressions and macros stay what they are. Mappings and lists that Python code has passed are lost, as
    MONAI rewrites them in place. Of a workflow that was not made by :func:`monai.bundle.create_workflow`, which all of
    MONAI's commands call, files and overrides are not known. In both cases the caller passes :func:`literal`.

    Args:
        workflow: has been parsed, and nothing of it built.
        words: of the command line that has started it; empty where none has.

    Returns:
        the ids that were overridden, as far as they are known.

    Raises:
        BundleError: where an override is an expression that is none, or refers to an id that does not exist: names it.
    """
    made_from = _made_from(inspect.currentframe())
    if made_from is None:
        return []
    files, overrides = made_from
    check_references(overrides, workflow.parser)
    _check_expressions(overrides, workflow.parser)
    options = typed_options(words)
    typed: dict[str, Any] = {key: text for key, text in options.items() if _was_misread(key, text, overrides)}
    # MONAI has rewritten these in place
    nested = [key for key in options if isinstance(overrides.get(key), dict | list) and key not in typed]
    overrides |= {key: DefaultParseValue(options[key]) for key in nested}
    source = ConfigParser()
    source.read_config(files)
    source.update({**overrides, **typed})
    forced = {path.replace("#", "::") for path in typed}
    if _restore(source.config, workflow.parser.config, "", forced):
        workflow.parser.parse(reset=True)
    return list(overrides)


def _made_from(frame: FrameType | None) -> tuple[Any, dict[str, Any]] | None:
    """Config files and overrides of the call of MONAI's that has made the running workflow."""
    while frame is not None:
        if frame.f_code is create_workflow.__code__:
            known = frame.f_locals
            own = inspect.signature(ConfigWorkflow.__init__).parameters
            overrides = {key: value for key, value in known.get("_args", {}).items() if key not in own}
            return (known["config_file"], overrides) if known.get("config_file") else None
        frame = frame.f_back
    return None


def typed_options(words: Sequence[str]) -> dict[str, str]:
    """The options of a command line as they were typed."""
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    return {key[2:]: text for key, text in pairwise(parts) if key.startswith("--")}


def _was_misread(key: str, text: str, overrides: Mapping[str, Any]) -> bool:
    """Whether Fire has made something else of a name than what was typed; quotes around one are no part of it."""
    value = overrides.get(key)
    if value is None or value == text or not _NAMES.fullmatch(key):
        return False
    return not (isinstance(value, str) and text[:1] in "'\"" and text[:1] == text[-1:])


def _restore(source: Any, config: Any, path: str, forced: set[str]) -> bool:
    """Replace in a config what was rewritten of its source; whether there was anything."""
    if not isinstance(config, dict | list) or type(source) is not type(config):
        return False
    changed = False
    for key, value in list(source.items() if isinstance(source, dict) else enumerate(source)):
        place = f"{path}::{key}" if path else str(key)
        if isinstance(config, dict) and key not in config:
            continue
        if place in forced or (isinstance(value, str) and _is_rewritten(value)) or _has_strange_keys(value):
            config[key] = literal(value)
            changed = True
        elif isinstance(value, dict | list):
            changed |= _restore(value, config[key], place, forced)
    return changed


def _is_rewritten(text: str) -> bool:
    if text.startswith(("$", "%")) or _REFERENCE.fullmatch(text) or text.startswith(("@#", "@::")):
        return False
    return "#" in text or "%::" in text or "@::" in text


def _has_strange_keys(value: Any) -> bool:
    """Whether a mapping without anything of the config language in it has keys that MONAI takes for paths."""
    if not isinstance(value, dict) or not any("#" in str(key) or "::" in str(key) for key in value):
        return False
    return not any(text.startswith(LANGUAGE) or text == "_target_" for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _texts(key)
            yield from _texts(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _texts(child)
    elif isinstance(value, str):
        yield value


def check_references(overrides: Mapping[str, Any], parser: ConfigParser) -> None:
    """Refuse overrides that refer to what does not exist, or to something where a name is meant.

    Args:
        overrides: values by config id.
        parser: of the config with its overrides.

    Raises:
        BundleError: names the override, and what there is none of.
    """
    for key, value in overrides.items():
        if not isinstance(value, str):
            continue
        if value.startswith("%") and _NAMES.fullmatch(key):
            raise BundleError(
                f"{key}: {value!r} is read as a macro, the content of another config id; a name that begins with % is "
                f"given as ./{value}"
            )
        for reference in [*ReferenceResolver.match_refs_pattern(value), *_macros(value)]:
            if reference not in parser:
                raise BundleError(
                    f"{key}: {value!r} refers to the config id '{reference}', and there is none; a name that begins "
                    f"with {value[0] if value[0] in LANGUAGE else '@'} is given as ./{value}"
                )


def _macros(value: str) -> list[str]:
    """The id whose content a value is replaced by; none where that of another file is meant, or there is no macro."""
    path, place = ConfigParser.split_path_id(value[1:]) if value.startswith("%") else ("", "")
    return [place] if place and not path else []


def _check_expressions(overrides: Mapping[str, Any], parser: ConfigParser) -> None:
    for key, value in overrides.items():
        if isinstance(value, str) and value.startswith("$") and (reason := _wrong_expression(value[1:], parser)):
            raise BundleError(
                f"{key}: {value!r} is read as a Python expression, and {reason}; a name that begins with $ is given as "
                f"./{value}"
            )


def _wrong_expression(text: str, parser: ConfigParser) -> str | None:
    """Why an expression cannot be evaluated: it is none, or names what does not exist."""
    try:
        nodes = list(ast.walk(ast.parse(_REFERENCE.sub("None", text.strip()))))
    except SyntaxError:
        return "is none"
    if len(nodes) == 1:  # the module itself: there is nothing in it
        return "is none"
    if any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes):
        return None
    known = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    known |= {node.arg for node in nodes if isinstance(node, ast.arg)} | set(parser.globals) | set(dir(builtins))
    unknown = [node.id for node in nodes if isinstance(node, ast.Name) and node.id not in known]
    return f"nothing is called '{unknown[0]}' in it" if unknown else None
