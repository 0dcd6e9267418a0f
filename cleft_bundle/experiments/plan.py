"""From the file of an experiment to the runs it takes: each setting once, whoever needs it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cleft_bundle
from cleft_bundle.errors import BundleError, nearest
from cleft_bundle.experiments.experiment_file import PLACES, Experiment, Point, Row, placed, places_in
from cleft_bundle.experiments.label_tables import write_label_table
from cleft_bundle.files import read_object, save_text, sha256

SETTINGS = "settings.json"
DONE = "done.json"


@dataclass(frozen=True)
class Places:
    """Folders and files of an experiment.

    Args:
        root: the bundle, whose ``configs`` the experiment names.
        output_dir: receives everything.
        data: what ``{data}`` stands for; empty: not given.
        backbones: what ``{backbones}`` stands for; empty: not given.
        tracking_uri: where MLflow keeps runs; empty: nothing is tracked.
    """

    root: Path
    output_dir: Path
    data: str = ""
    backbones: str = ""
    tracking_uri: str = ""


@dataclass(frozen=True)
class Job:
    """One run of a workflow.

    Args:
        step: the step of the experiment.
        seed: its seed.
        run: the run id.
        files: config files as a user would type them from the bundle's folder.
        settings: values over these, by id.
        fingerprint: SHA-256 of all that its outcome depends on, as far as it is known before.
        folder: receives its files.
        needs: fingerprints of the jobs whose files it reads.
        row: label of the first row that wants it.
    """

    step: str
    seed: int
    run: str
    files: tuple[str, ...]
    settings: Mapping[str, Any]
    fingerprint: str
    folder: Path
    needs: tuple[str, ...]
    row: str

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.row}, {self.step}, seed {self.seed}"

    @property
    def arguments(self) -> list[str]:
        """Arguments of ``python``."""
        names = ",".join(repr(file) for file in (*self.files, str(self.folder / SETTINGS)))
        return ["-m", "monai.bundle", "run", self.run, "--config_file", f"[{names}]"]

    @property
    def command(self) -> str:
        """The line for a shell, to be typed in the bundle's folder."""
        *words, files = self.arguments
        quoted = shlex.quote(files) if set(files) & set('"$`\\!') else f'"{files}"'
        return f"python {shlex.join(words)} {quoted}"

    def cost(self) -> dict[str, Any] | None:
        """Content of ``done.json``, None where the run has not ended well or had other settings."""
        try:
            done = json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return done if done.get("fingerprint") == self.fingerprint else None

    def write_settings(self) -> None:
        """Write the values as the overlay that :attr:`arguments` names."""
        save_text(json.dumps(self.settings, indent=1, ensure_ascii=False) + "\n", self.folder / SETTINGS)


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Args:
        label: of the row; with the step where the row measures several.
        row: label of the row.
        step: the step whose scores are measured.
        point: which of several scores.
        reference: label of the line that it is compared with.
        chains: from each seed to the fingerprints of all jobs that it takes, the measured one last.
    """

    label: str
    row: str
    step: str
    point: Point
    reference: str
    chains: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


class Plan:
    """The runs of an experiment, and the lines of its table.

    Args:
        experiment: what :func:`cleft_bundle.experiments.read_experiment` returns.
        places: where things are.
        only: labels of the rows to run, besides those that they are compared with; empty: all.

    Attributes:
        jobs: fingerprints to jobs, each after those it needs; cell by cell.
        lines: of the table.

    Raises:
        BundleError: where a file or a place is missing, an id of a config is none, or steps need each other.
    """

    def __init__(self, experiment: Experiment, places: Places, only: Collection[str] = ()) -> None:
        self.experiment = experiment
        self.places = places
        self.jobs: dict[str, Job] = {}
        self._check_files()
        self._places = self._given_places()
        for name, table in experiment.tables.items():
            write_label_table(table, placed(table.source, self._places), places.output_dir / "tables" / name)
        for name in only:
            if name not in (labels := [row.label for row in experiment.rows]):
                raise BundleError(f"--only: there is no row {name!r}{nearest(name, labels)}")
        self.lines = [self._planned(line, row) for line, row in self._wanted(only)]

    def ended(self) -> list[Line]:
        """The lines of which a seed has ended."""
        ended = {fingerprint for fingerprint, job in self.jobs.items() if job.cost() is not None}
        return [line for line in self.lines if any(ended.issuperset(chain) for chain in line.chains.values())]

    def _wanted(self, only: Collection[str]) -> list[tuple[Line, Row]]:
        """Lines and their rows, those of the references included."""
        lines = [(line, row) for row in self.experiment.rows for line in self._lines_of(row)]
        if not only:
            return lines
        compared = {line.reference for line, row in lines if row.label in only}
        return [(line, row) for line, row in lines if row.label in only or line.label in compared]

    def _lines_of(self, row: Row) -> list[Line]:
        rows = {other.label: other for other in self.experiment.rows}
        other = rows[row.reference or self.experiment.reference]
        lines = []
        for step in row.steps:
            shared = step if step in other.steps else other.steps[0]
            lines.append(Line(_label(row, step), row.label, step, row.point, _label(other, shared)))
        return lines

    def _planned(self, line: Line, row: Row) -> Line:
        chains = {seed: self._chain(line.step, row, seed, measured=True) for seed in self.experiment.seeds}
        return replace(line, chains=chains)

    def _chain(
        self, step: str, row: Row, seed: int, measured: bool = False, above: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Make the job of a step after those it needs; the fingerprints of all of them."""
        if step in above:
            raise BundleError(f"steps need each other: {' -> '.join([*above, step])}")
        base, own = self.experiment.base, self.experiment.steps[step]
        values = {**base.overrides, **own.overrides, **row.overrides, **row.of.get(step, {})}
        values |= dict.fromkeys(self.experiment.seed_ids, seed)
        if measured:
            values["evaluate_split"] = self.experiment.split
        files = (*base.config_files, *row.config_files, *own.config_files)
        self._check_ids(values, files, f"row {row.label!r}, step '{step}'")
        needed = [name for name in dict.fromkeys(places_in(values)) if name not in PLACES]
        chains = {name: self._chain(name, row, seed, above=(*above, step)) for name in needed}
        ends = {name: chain[-1] for name, chain in chains.items()}
        fingerprint = self._fingerprint(own.run, files, values, ends)
        folder = self.places.output_dir / "runs" / f"{step}_seed{seed}_{fingerprint[:12]}"
        if fingerprint not in self.jobs:
            folders = {name: str(self.jobs[end].folder) for name, end in ends.items()}
            settings = {**placed(values, {**self._places, **folders}), **self._outputs(folder)}
            self.jobs[fingerprint] = Job(
                step, seed, own.run, files, settings, fingerprint, folder, tuple(ends.values()), row.label
            )
        before = dict.fromkeys(one for chain in chains.values() for one in chain)
        return (*before, fingerprint)

    def _outputs(self, folder: Path) -> dict[str, Any]:
        return {
            "output_dir": str(folder / "eval"),
            "models_dir": str(folder / "models"),
            "run_name": folder.name,
            "experiment_name": self.experiment.name,
            "tracking_uri": self.places.tracking_uri,
        }

    def _fingerprint(self, run: str, files: Sequence[str], values: Mapping[str, Any], needs: Mapping[str, str]) -> str:
        """Digest of the run id, the content of the configs, the values, and the label tables and files they name."""
        stands = {**self._places, "tables": "{tables}", **{name: f"<{digest}>" for name, digest in needs.items()}}
        read = {text: digest for text in _texts(placed(values, self._places)) if (digest := _content(text))}
        content = {
            "version": cleft_bundle.__version__,
            "run": run,
            "files": [sha256(self.places.root / file) for file in files],
            "values": placed(values, stands),
            "read": sorted(read.values()),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _given_places(self) -> dict[str, str]:
        """The places by name; a place that is needed must be given."""
        content = self.experiment.model_dump()
        given = {"data": self.places.data, "backbones": self.places.backbones}
        options = {"data": "--data_root", "backbones": "--backbones"}
        for name in sorted(set(places_in(content)) & set(given)):
            if not given[name]:
                raise BundleError(f"{options[name]} is missing: the experiment names {{{name}}}")
            if not os.path.isdir(given[name]):
                raise BundleError(f"{options[name]}: there is no folder {given[name]}")
        found = {name: os.path.abspath(folder) for name, folder in given.items() if folder}
        return {**found, "tables": str(self.places.output_dir / "tables")}

    def _check_files(self) -> None:
        described = self.experiment
        named = [*described.base.config_files, *(file for row in described.rows for file in row.config_files)]
        named += [file for step in described.steps.values() for file in step.config_files]
        for file in dict.fromkeys(named):
            if not (self.places.root / file).is_file():
                folder = (self.places.root / file).parent
                beside = [str(Path(file).with_name(other.name)) for other in folder.glob("*.json")]
                raise BundleError(f"config file {file} does not exist in {self.places.root}{nearest(file, beside)}")

    def _check_ids(self, values: Mapping[str, Any], files: Sequence[str], where: str) -> None:
        known = self._known_ids | {name for file in files for name in _ids(self.places.root / file)}
        for key in values:
            name = key.lstrip("+~").split("#")[0]
            if name not in known:
                raise BundleError(f"{where}: no config of the bundle has an id {name!r}{nearest(name, known)}")

    @cached_property
    def _known_ids(self) -> set[str]:
        """The top-level ids of the bundle's configs."""
        files = [file for file in (self.places.root / "configs").glob("*.json") if file.name != "metadata.json"]
        return {name for file in files for name in _ids(file)}


def _label(row: Row, step: str) -> str:
    return f"{row.label}, {step}" if len(row.steps) > 1 else row.label


def _ids(file: Path) -> set[str]:
    return {key.lstrip("+~").split("#")[0] for key in read_object(file)}


def _texts(value: Any) -> list[str]:
    """The texts in a value."""
    if isinstance(value, Mapping):
        return [text for child in value.values() for text in _texts(child)]
    if isinstance(value, list):
        return [text for child in value for text in _texts(child)]
    return [value] if isinstance(value, str) else []


def _content(text: str) -> str | None:
    """Digest of a file that a text names, or of the label table in the folder that it names."""
    if not os.path.isabs(text):
        return None
    place = Path(text)
    table = place / "labels.csv" if place.is_dir() else place
    return sha256(table) if table.is_file() else None
