"""The JSON configs at run time: where they are, whether they are right, what was executed."""

from __future__ import annotations

import inspect
import json
import logging
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from traceback import format_exception
from types import TracebackType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ConfigComponent
from monai.utils import set_determinism
from monai.utils.module import locate

from cleft_bundle.best_effort import begin_run
from cleft_bundle.distributed import start_processes
from cleft_bundle.errors import BundleError, UsageError, cause_of, nearest
from cleft_bundle.literals import as_written, keep_literals, literal, typed_options
from cleft_bundle.progress import close_bars
from cleft_bundle.secrets import mask_logs, masked, masked_values
from cleft_bundle.settings import FORMER, RENAMED, SAME, check_settings

logger = logging.getLogger(__name__)

_REFERENCE = re.compile(r"[@%](\w+)")
# what nothing reads once another network has taken the place of CLEFT's own
_OF_CLEFT = (
    *("image_backbone", "text_backbone", "embedding_dim"),
    *("text_pooling", "text_dtype", "text_checkpointing", "max_caption_tokens", "image_mean", "image_std"),
)
_COMPONENT_KEYS = {"_target_", "_disabled_", "_requires_", "_desc_", "_mode_", "_debug_"}


def bundle_root() -> str:
    """Root folder of the bundle whose workflow is running, else the current one: asked for by configs before 0.9.0."""
    workflow = _running_workflow()
    return "." if workflow is None else str(_root_of(workflow))


def begin(seed: int | None = None, timeout_minutes: float = 30.0) -> None:
    """Begin a workflow: check its config, join the processes of ``torchrun``, make it repeatable.

    Args:
        seed: of all random numbers. None leaves them alone.
        timeout_minutes: how long a process waits for another before the run ends.

    Raises:
        BundleError: what :func:`check_config` and :func:`cleft_bundle.distributed.start_processes` raise.
    """
    report_errors()
    check_config()
    start_processes(timeout_minutes)
    if seed is not None:
        set_determinism(seed)


def check_config() -> None:
    """Stop where the config of the running workflow has an id or an argument that nothing knows; read its switches.

    A ``bundle_root`` of ``.``, as configs of MONAI's bundles have it, becomes the folder around the config files,
    wherever the command was started. MONAI accepts a mistyped override in silence. An id is known where a config file
    of the bundle defines it or another value refers to it; an argument of a component where the component takes it. A
    config that trains on a ``dataset_dir`` of whoever runs it stops here where nobody has given one. Values at the top
    must be of the type and in the range of :class:`cleft_bundle.settings.Settings`.

    Raises:
        BundleError: naming the id and the nearest known one, or the value that is missing or wrong.
    """
    workflow = _running_workflow()
    if workflow is None:
        return
    begin_run()
    mask_logs()
    overrides = keep_literals(workflow, sys.argv[1:] if command_line()[0] else [])
    _settle_root(workflow)
    config = workflow.parser.get()
    _read_switches(workflow.parser)
    _refuse_two_ends(workflow.parser, overrides)
    check_settings(_literals(workflow.parser))
    _refuse_former(workflow.parser)
    known = _known_ids(workflow.config_root_path)
    referenced = set(_REFERENCE.findall(json.dumps({k: v for k, v in config.items() if k != "_meta_"}, default=str)))
    _refuse_unknown(config, known, referenced)
    if "dual_encoder" in config:
        _refuse_unread(config, referenced, workflow.config_root_path)
    if "train" in config and config.get("dataset_dir", "") is None:
        raise BundleError("dataset_dir is not set: pass the folder of the images with --dataset_dir")
    for path, component in _components("", config):
        _check_arguments(path, component, workflow.parser)


def _refuse_two_ends(parser: ConfigParser, overrides: Sequence[str]) -> None:
    """Refuse epochs that whoever runs a config gives beside steps: of those that files give the steps count."""
    steps = parser.get("max_steps")
    for key in {"epochs", "train#trainer#max_epochs"} & {name.replace("::", "#") for name in overrides}:
        if steps is not None:
            raise BundleError(
                f"{key}: the training ends after max_steps, {steps}; give one of the two (--max_steps None)"
            )


def _refuse_unknown(config: Mapping[str, Any], known: Mapping[str, set[str]], referenced: set[str]) -> None:
    """Refuse an id that neither a config file of the bundle nor another value knows."""
    for key in config:
        if key in RENAMED and RENAMED[key] in config and key not in referenced:
            raise UsageError(f"unknown config id {key!r}: since 0.9.0 it is {RENAMED[key]}")
        if key not in known[""] | referenced | {"_meta_"}:
            raise UsageError(f"unknown config id {key!r}{_nearest(key, known[''])}")
    for section in ("train", "validate"):
        for key in config.get(section, {}):
            if key not in known[section]:
                raise UsageError(f"unknown config id '{section}#{key}'{_nearest(key, known[section])}")


def report_errors() -> None:
    """From now on show an uncaught :class:`BundleError` as the one line that it is, without MONAI's traceback.

    Any other exception is shown as Python does. The full chain of a :class:`BundleError` goes to the log at level
    DEBUG. Credentials are masked in both.
    """

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        cause = cause_of(error)
        close_bars()
        if cause is None:
            print(masked("".join(format_exception(kind, error, traceback))), file=sys.stderr, end="")
        else:
            logger.debug("the chain of the error", exc_info=(kind, error, traceback))
            print(f"error: {masked(str(cause))}", file=sys.stderr)

    sys.excepthook = hook


def executed_config() -> dict[str, Any]:
    """The config of the running workflow as it stands: overrides included, references unresolved, no credentials."""
    workflow = _running_workflow()
    config = {} if workflow is None else workflow.parser.get()
    return masked_values(as_written({key: value for key, value in config.items() if key != "_meta_"}))


def executed_part(name: str) -> Any:
    """Value of :func:`executed_config` under an id at its top; None where there is no such id."""
    return executed_config().get(name)


def resolved(name: str) -> Any:
    """A part of the running config as JSON: its components are not built, its references and expressions are resolved.

    Of a list, components that are switched off by ``_disabled_`` are left out, as they are where it is built.

    Args:
        name: an id of the config, such as ``network_transforms``.

    Raises:
        BundleError: where no config is running, or an expression of the part is no JSON value.
    """
    workflow = _running_workflow()
    if workflow is None:
        raise BundleError(f"{name}: no config is running that could be resolved")
    return _resolve(name, workflow.parser)


def preprocessing_settings(image_size: int) -> dict[str, Any]:
    """Settings by which the running config prepares images for the network, as classifiers keep them.

    Args:
        image_size: side of the prepared images, pixels.

    Returns:
        ``image_size``, and ``transforms``, the config's ``deterministic_transforms`` and ``network_transforms`` as
        JSON, see :func:`resolved`.
    """
    transforms = [*resolved("deterministic_transforms"), *resolved("network_transforms")]
    return {"image_size": image_size, "transforms": transforms}


def _resolve(path: str, parser: ConfigParser) -> Any:
    raw = parser.get(path)
    if isinstance(raw, Mapping):
        return {key: _resolve(f"{path}#{key}", parser) for key in raw}
    if isinstance(raw, list):
        parts = [_resolve(f"{path}#{number}", parser) for number in range(len(raw))]
        return [_enabled(part) for part in parts if not (isinstance(part, dict) and part.get("_disabled_"))]
    value = parser.get_parsed_content(path) if isinstance(raw, str) and raw.startswith(("@", "$")) else raw
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise BundleError(f"{path}: {raw!r} is a {type(value).__name__}, which cannot be written down") from error


def _enabled(part: Any) -> Any:
    """A component without the switch that is not off."""
    return {key: value for key, value in part.items() if key != "_disabled_"} if isinstance(part, dict) else part


def top_level_scalars() -> dict[str, str | int | float | bool]:
    """The scalars at the top of the running config, evaluated and masked: what people change from run to run."""
    workflow = _running_workflow()
    if workflow is None:
        return {}
    config = executed_config()
    values = {}
    for key, raw in config.items():
        content = raw
        while isinstance(content, str) and content.startswith("@") and content[1:] in config:
            content = config[content[1:]]
        if not isinstance(content, dict | list):  # a reference to a list may be the run itself: never resolve that
            value = workflow.parser.get_parsed_content(key)
            if isinstance(value, str | int | float | bool):
                values[key] = value
    return masked_values(values)


def command_line() -> tuple[list[str], list[str]]:
    """Config files and overrides of the command that is being run, for the commands that can follow it.

    Returns:
        names of the files, and the overrides but for ``--resume`` and ``--run_name``, which concern one run only. Both
        are empty where the config was not started from a shell.
    """
    given = typed_options(sys.argv[1:])
    files = re.findall(r"[^\s'\"\[\],]+", given.pop("config_file", ""))
    kept = {f"--{key}": value for key, value in given.items() if key not in ("resume", "run_name")}
    return (files, [part for pair in kept.items() for part in pair]) if files else ([], [])


def command(run_id: str, files: Sequence[str], *options: str) -> str:
    """The line by which a shell runs config files, credentials masked."""
    names = ",".join(f"'{file}'" for file in files)
    config_file = f'"[{names}]"' if len(files) > 1 else files[0]
    words = ["python -m monai.bundle run", run_id, "--config_file", config_file, *map(shlex.quote, options)]
    return masked(" ".join(words))


def _running_workflow() -> ConfigWorkflow | None:
    """Find the workflow that evaluates the expression which called us: MONAI does not hand it to expressions."""
    frame = inspect.currentframe()
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, ConfigWorkflow):
            return candidate
        frame = frame.f_back
    return None


def _root_of(workflow: ConfigWorkflow) -> Path:
    return workflow.config_root_path.resolve().parent


def _settle_root(workflow: ConfigWorkflow) -> None:
    config = workflow.parser.get()
    if config.get("bundle_root") == ".":
        config["bundle_root"] = literal(str(_root_of(workflow)))
        workflow.parser.parse(reset=True)


def _read_switches(parser: ConfigParser) -> None:
    """Fire reads ``--resume False`` as a boolean, and ``--resume false`` as a text, which is true."""
    config = parser.get()
    for key, value in config.items():
        if value in ("true", "false"):
            config[key] = value == "true"
            parser.ref_resolver.items[key].update_config(config[key])


def _literals(parser: ConfigParser) -> dict[str, Any]:
    """The plain values at the top of a config, and those further down that mean the same as one of them."""
    found = {key: value for key, value in parser.get().items() if not key.startswith("_")}
    for path in SAME:
        try:
            found[path] = parser[path]
        except (KeyError, IndexError, TypeError):
            continue
    return {key: value for key, value in found.items() if _is_literal(value)}


def _is_literal(value: Any) -> bool:
    """Whether a config value is what it says: no reference, expression or component, and no list with one of them."""
    if isinstance(value, Mapping):
        return "_target_" not in value and all(map(_is_literal, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_literal, value))
    return not (isinstance(value, str) and value.startswith(("$", "@", "%")))


def _known_ids(folder: Path) -> dict[str, set[str]]:
    """The ids that the bundle's config files define: at the top (under ""), and in ``train`` and ``validate``."""
    known: dict[str, set[str]] = {"": set(), "train": set(), "validate": set()}
    for file in folder.glob("*.json"):
        if file.name != "metadata.json":
            content = ConfigParser.load_config_file(file)
            for key, value in content.items():
                section, *rest = key.lstrip("+~").replace("::", "#").split("#")
                known[""].add(section)
                if section in known:
                    known[section].update(rest[:1] or value)
    return known


def _refuse_unread(config: Mapping[str, Any], referenced: set[str], folder: Path) -> None:
    """Refuse what only CLEFT's own network reads, where it was changed and another network has taken its place."""
    plain = ConfigParser.load_config_file(folder / "train.json")
    for key in _OF_CLEFT:
        unread = key not in referenced or key.endswith("_backbone")  # whose tokenizer is no reader of it
        if unread and config.get(key) != plain.get(key):
            raise UsageError(f"{key}: nothing reads it here, as the network is the one that dual_encoder names")


def _components(path: str, config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All ``_target_`` components of a config with their ids, depth first."""
    children: Any = ()
    if isinstance(config, Mapping):
        if isinstance(config.get("_target_"), str):
            yield path, config
        children = ((key, value) for key, value in config.items() if key != "_meta_")
    elif isinstance(config, list):
        children = enumerate(config)
    for key, value in children:
        yield from _components(f"{path}#{key}" if path else str(key), value)


def _check_arguments(path: str, component: Mapping[str, Any], parser: ConfigParser) -> None:
    name = ConfigComponent(dict(component), locator=parser.locator).resolve_module_name()
    target = locate(name)
    if target is None:
        raise BundleError(f"{path}: there is no class or function {component['_target_']!r}")
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in component:
        if key not in parameters and key not in _COMPONENT_KEYS:
            raise UsageError(f"unknown config id '{path}#{key}'{_nearest(key, set(parameters))}")


def _refuse_former(parser: ConfigParser) -> None:
    for path, instead in FORMER.items():
        if path in parser:
            raise UsageError(f"unknown config id '{path}': since 0.9.0 it is {instead}")


def _nearest(key: str, known: set[str]) -> str:
    return nearest(key, sorted(known)) or f"; known here are {', '.join(sorted(known))}"
