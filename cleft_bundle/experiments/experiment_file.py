"""The file of an experiment: what it may say, and one line for what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.files import read_object
from cleft_bundle.metrics.classification import METRICS
from cleft_bundle.settings import Seed

#: What a text of an experiment may begin with besides the names of its steps.
PLACES = ("data", "backbones", "tables")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PLACE = re.compile(r"\{([^{}/]*)\}(?=/|$)")

Values = dict[str, Any]
Files = list[str]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)


class Base(_Part):
    """Config files that all cells have in common, and values over them by their ids."""

    config_files: Annotated[Files, Field(min_length=1)]
    overrides: Values = {}


class Step(_Part):
    """A workflow of the bundle: its run id, and the config files and values that it adds to the base and the row."""

    run: str
    config_files: Files = []
    overrides: Values = {}


class Point(_Part):
    """Choice of one of the scores that a linear probe or a fine-tuning has left."""

    source: str | None = None
    fraction: float | None = None


class Row(_Part):
    """A row of the table: steps whose scores are measured, and what is special about it.

    ``overrides`` holds for all its steps and those that they need, ``of`` for single ones of these.
    """

    label: Annotated[str, Field(min_length=1)]
    steps: Annotated[list[str], Field(min_length=1)]
    config_files: Files = []
    overrides: Values = {}
    of: dict[str, Values] = {}
    point: Point = Point()
    reference: str | None = None


class LabelTable(_Part):
    """A ``labels.csv`` made from another one: which column is the finding, and what its values are called.

    ``caption`` names a column of text, or is a text with names of columns in braces, whose values come in small letters
    and joined by commas. ``where`` keeps the rows that have these values in these columns, and ``without`` leaves out
    columns, such as ``split`` where the experiment draws its own.
    """

    source: Annotated[str, Field(alias="from")]
    finding: str = "finding"
    values: dict[str, str] = {}
    caption: str | None = None
    where: dict[str, str] = {}
    without: list[str] = []


class Experiment(_Part):
    """A grid of rows x seeds."""

    name: str
    description: str = ""
    base: Base
    tables: dict[str, LabelTable] = {}
    steps: Annotated[dict[str, Step], Field(min_length=1)]
    rows: Annotated[list[Row], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    seed_ids: Annotated[list[str], Field(min_length=1)] = ["seed", "subset_seed"]
    reference: str
    metrics: Annotated[list[str], Field(min_length=1)]
    split: Literal["test"] = "test"
    resamples: Annotated[int, Field(ge=1)] = 10_000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95


_MODELS: dict[str, type[_Part]] = {"base": Base, "tables": LabelTable, "steps": Step, "rows": Row}


def read_experiment(path: str | Path) -> Experiment:
    """Read the file of an experiment, and check what can be checked without its data.

    Args:
        path: JSON, as docs/experiments.md describes it.

    Raises:
        BundleError: names the file, the place in it, and the nearest name that is known.
    """
    path = Path(path)
    if not path.is_file():
        beside = [str(other) for other in path.parent.glob("*.json")] if path.parent.is_dir() else []
        raise BundleError(f"experiment {path} does not exist{nearest(str(path), beside)}")
    content = read_object(path)
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{path}: {_first(error, content)}") from None
    try:
        _check(experiment)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    return experiment


def places_in(value: Any) -> Iterable[str]:
    """The names in braces that the texts of a value begin with, such as ``data`` of ``{data}/cxr``."""
    if isinstance(value, str) and (found := _PLACE.match(value)):
        yield found[1]
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from places_in(child)


def placed(value: Any, places: dict[str, str]) -> Any:
    """A value with places in the place of their names; any other braces stay."""
    if isinstance(value, str) and (found := _PLACE.match(value)) and found[1] in places:
        return places[found[1]] + value[found.end() :]
    if isinstance(value, dict):
        return {key: placed(child, places) for key, child in value.items()}
    return [placed(child, places) for child in value] if isinstance(value, list) else value


def _first(error: ValidationError, content: Any) -> str:
    """The first thing that is wrong, where it is, and what it may be called."""
    first = error.errors()[0]
    place = first["loc"]
    where = ".".join(map(str, place)) or "the file"
    if place[:1] == ("rows",) and len(place) > 1 and isinstance(row := content["rows"][place[1]], dict):
        where += f" ({row['label']!r})" if isinstance(row.get("label"), str) else ""
    if first["type"] == "extra_forbidden":
        model = Point if "point" in place[:-1] else _MODELS.get(str(place[0]), Experiment) if place[1:] else Experiment
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"unknown key {str(place[-1])!r} at {where}{nearest(str(place[-1]), known)}"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _check(experiment: Experiment) -> None:
    for name in (experiment.name, *experiment.steps, *experiment.tables):
        if not _NAME.fullmatch(name):
            raise BundleError(f"name {name!r}: expected letters, digits, _, . and -, for it names a folder")
    if taken := set(experiment.steps) & set(PLACES):
        raise BundleError(f"steps: '{min(taken)}' names a place; call the step otherwise")
    labels = [row.label for row in experiment.rows]
    _no_twins("rows", labels)
    _no_twins("seeds", list(map(str, experiment.seeds)))
    for metric in experiment.metrics:
        base = metric.partition("/")[0].removesuffix("_macro")
        if base not in METRICS:
            raise BundleError(f"metrics: unknown metric {metric!r}{nearest(base, METRICS)}")
    _known("reference", experiment.reference, labels)
    for row in experiment.rows:
        _check_row(row, labels, experiment.steps)
    _check_places(experiment)


def _check_row(row: Row, labels: Sequence[str], steps: Collection[str]) -> None:
    where = f"row {row.label!r}"
    if row.reference is not None:
        _known(f"{where}: reference", row.reference, labels)
    for step in (*row.steps, *row.of):
        _known(f"{where}: step", step, steps)
    _no_twins(f"{where}: steps", row.steps)


def _check_places(experiment: Experiment) -> None:
    values: dict[str, Any] = {f"row {row.label!r}": [row.overrides, row.of] for row in experiment.rows}
    values |= {f"step '{name}'": step.overrides for name, step in experiment.steps.items()}
    values |= {f"table '{name}'": table.source for name, table in experiment.tables.items()}
    for where, value in {"base": experiment.base.overrides, **values}.items():
        for name in places_in(value):
            _known(f"{where}: place", name, [*PLACES, *experiment.steps])


def _no_twins(where: str, names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BundleError(f"{where}: {twice[0]!r} is there twice")


def _known(where: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise BundleError(f"{where}: there is no {name!r}{nearest(name, known)}")
