"""Experiments: rows of settings x seeds as runs of the bundle's own workflows, and one table of what came out."""

from cleft_bundle.experiments.experiment_file import Experiment, read_experiment
from cleft_bundle.experiments.plan import Places, Plan
from cleft_bundle.experiments.running import Runner
from cleft_bundle.experiments.table import write_tables

__all__ = ["Experiment", "Places", "Plan", "Runner", "read_experiment", "write_tables"]
