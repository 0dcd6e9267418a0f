"""``cleft experiment FILE``: rows of settings x seeds as runs of the bundle's workflows, and one table."""

from __future__ import annotations

import os
from pathlib import Path

from cleft_bundle.checkpoints import RunIdentity
from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.experiments import Experiment, Places, Plan, Runner, read_experiment, write_tables
from cleft_bundle.experiments.estimates import Outcome, outcomes
from cleft_bundle.files import save_text
from cleft_bundle.handlers import RunTracker
from cleft_bundle.locks import FolderLock
from cleft_bundle.stores import sqlite_uri

_PARENT = "mlflow_run.txt"


def experiment(
    *files: str,
    data_root: str = "",
    backbones: str = "",
    output_dir: str | None = None,
    only: str = "",
    jobs: str | int = 1,
    dry_run: str | bool = False,
    tracking_uri: str | None = None,
) -> None:
    """Run what an experiment lacks, and write its table.

    Runs that have ended are kept: after a stop the same command goes on with the one that was broken, and after a
    change of the file only those run that the change touches.

    Args:
        files: experiments, such as configs/experiments/text_tower.json, one after the other; docs/experiments.md
            describes them.
        data_root: folder that {data} stands for.
        backbones: folder that {backbones} stands for.
        output_dir: receives a folder for each experiment, by its name; by default eval/experiments in the folder of
            the bundle.
        only: label of a row to run, or several joined by |; what they are compared with runs too.
        jobs: how many runs there are side by side.
        dry_run: true prints the commands of the runs that are lacking, writes the settings that they name, and runs
            none.
        tracking_uri: where MLflow keeps runs; by default MLFLOW_TRACKING_URI, or mlruns.db in output_dir; '' tracks
            nothing.

    Raises:
        BundleError: a file or an argument is not as described, before anything runs; or, at the end, a run has failed.
    """
    require_one_of("dry_run", str(dry_run).lower(), ("true", "false"))
    if not str(jobs).isdecimal() or int(jobs) < 1:
        raise BundleError(f"jobs: expected a whole number, 1 or more, got '{jobs}'")
    if not files:
        raise BundleError("expected the file of an experiment, such as configs/experiments/text_tower.json")
    plans = []
    for file in files:
        described, root = read_experiment(file), _bundle_of(Path(file))
        above = Path(output_dir).absolute() if output_dir else root / "eval" / "experiments"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(above / "mlruns.db")
        places = Places(
            root, above / described.name, data_root, backbones, uri if tracking_uri is None else tracking_uri
        )
        plans.append(Plan(described, places, _rows_of(only, described)))
    if str(dry_run).lower() == "true":
        for plan in plans:
            _show(plan)
        return
    failed = [reason for plan in plans for reason in _run_alone(plan, int(jobs))]
    if failed:
        total = sum(len(plan.jobs) for plan in plans)
        raise BundleError(f"{len(failed)} of {total} runs have failed, the first: {failed[0]}")


def _rows_of(only: str, described: Experiment) -> list[str]:
    """The labels that --only names; ``|`` may be part of one."""
    return [only] if only in [row.label for row in described.rows] else [name for name in only.split("|") if name]


def _run_alone(plan: Plan, at_once: int) -> list[str]:
    """Run a plan while no other command does, and say why runs have failed."""
    lock = FolderLock(plan.places.output_dir, plan.experiment.name)
    lock.acquire()
    try:
        return _run(plan, at_once)
    finally:
        lock.release()


def _bundle_of(file: Path) -> Path:
    """The folder whose ``configs`` holds the file, else the current one."""
    above = [folder for folder in file.absolute().parents if folder.name == "configs"]
    return above[0].parent if above else Path.cwd()


def _show(plan: Plan) -> None:
    lacking = [job for job in plan.jobs.values() if job.cost() is None]
    for job in lacking:
        job.write_settings()
        print(f"# {job.title}\n{job.command}")
    print(f"# {len(lacking)} of {len(plan.jobs)} runs are lacking; the commands are for the folder {plan.places.root}")


def _run(plan: Plan, at_once: int) -> list[str]:
    """Run, and write the table of what has ended, as a run of MLflow's that the others are children of."""
    out, described = plan.places.output_dir, plan.experiment
    identity = RunIdentity(f"experiment_{described.name}", ())
    tracker = RunTracker(plan.places.tracking_uri, identity, experiment_name=described.name)
    remembered = out / _PARENT
    parent = tracker.start(remembered.read_text(encoding="utf-8").strip() if remembered.is_file() else None)
    if parent is not None:
        save_text(parent + "\n", remembered)
    try:
        failed = list(Runner(plan, at_once, parent).run().values())
        found = outcomes(plan) if plan.ended() else []
    except BaseException:
        tracker.fail()
        raise
    if not found:
        tracker.fail()
        return failed
    files = write_tables(described, found, out)
    if tracker.handler is not None and parent is not None:
        tracker.handler.attempt(tracker.handler.client.log_values, parent, _means(described, found))
    tracker.finish(files, {})
    for path in files:
        print(path)
    return failed


def _means(described: Experiment, found: list[Outcome]) -> dict[str, float]:
    """Labels and metrics to means over seeds."""
    return {
        f"{outcome.line.label}/{metric}": outcome.estimates[metric].mean
        for outcome in found
        for metric in described.metrics
        if metric in outcome.estimates
    }
