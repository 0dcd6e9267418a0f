"""The differences of a table as a picture: each row's, with its interval and every seed's own."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cleft_bundle.experiments.estimates import Estimate, Outcome
from cleft_bundle.experiments.experiment_file import Experiment
from cleft_bundle.reports.pages.pictures import COLOURS, GREY, draw_svg

LEVEL = 0.05


def draw_forest(experiment: Experiment, found: Sequence[Outcome]) -> str:
    """Draw the differences to the references, a panel for each metric.

    A square is the difference of the means over seeds, filled where its corrected p lies below 0.05, the bar its
    interval by patient, and the dots are the differences of single seeds.

    Args:
        experiment: its metrics.
        found: the lines of the table.

    Returns:
        the text of an SVG file.
    """
    size = (2.6 + 3.2 * len(experiment.metrics), 1.1 + 0.27 * len(found))
    return draw_svg(_forest, experiment, found, size=size)


def name_of(metric: str) -> str:
    """A metric as tables call it."""
    return metric.replace("auroc", "AUROC").replace("_macro", ", macro").replace("/", ", ").replace("_", " ")


def _forest(figure: Figure, experiment: Experiment, found: Sequence[Outcome]) -> None:
    panels: Sequence[Axes] = figure.subplots(1, len(experiment.metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, experiment.metrics, strict=True):
        panel.axvline(0, color=GREY, linewidth=1, zorder=0)
        for place, outcome in enumerate(found):
            if (estimate := outcome.estimates.get(metric)) is not None:
                _row(panel, place, estimate)
        panel.set_xlabel(f"{name_of(metric)}: difference to the reference")
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(found)), [outcome.line.label for outcome in found])
    panels[0].set_ylim(len(found) - 0.4, -0.6)


def _row(panel: Axes, place: int, estimate: Estimate) -> None:
    panel.annotate(
        f"{estimate.mean:.3f}", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize="small"
    )
    apart, colour = estimate.difference, COLOURS["train"]
    if apart is None:
        panel.plot([0], [place], marker="|", color="black", markersize=9)
        return
    if apart.is_known:
        panel.plot([apart.low, apart.high], [place, place], color=colour, linewidth=1.5)
    face = colour if estimate.holm < LEVEL else "white"
    panel.plot([apart.value], [place], marker="s", color=colour, markerfacecolor=face, markersize=6)
    values = list(estimate.differences.values())
    panel.plot(values, [place + 0.28] * len(values), ".", color=COLOURS["validation"], markersize=3)
