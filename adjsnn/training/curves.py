"""Curves of trained networks: a number against a condition, of runs and of groups of runs, in one picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from adjsnn.colours import COLOURS
from adjsnn.training.experiment import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(groups: Mapping[str, Sequence[Curve]]) -> "Figure":
    """Curves of trained networks: thin lines for runs, a thick one for the mean of each group, which have x in common.

    The range of a single group is shaded; of several, its points are full and those outside hollow.
    """
    from adjsnn import plotting  # noqa: PLC0415  matplotlib takes a second to load

    with plotting.style():
        return _drawn(groups)


def _drawn(groups: Mapping[str, Sequence[Curve]]) -> "Figure":
    from adjsnn import plotting  # noqa: PLC0415  as above

    several = len(groups) > 1
    figure = plotting.new_figure(5.4 if several else 4.2, 3.0 + 0.2 * len(groups) * several)
    axes = figure.subplots()
    for number, (label, runs) in enumerate(groups.items()):
        colour, first = COLOURS[number % len(COLOURS)], runs[0]
        x, mean = np.asarray(first.x), np.mean([run.y for run in runs], axis=0)
        low, high = first.shaded or (-np.inf, np.inf)
        if first.shaded and not several:
            axes.axvspan(low, high, color=colour, alpha=0.12, lw=0, label=first.shaded_label)
        for run in runs if len(runs) > 1 else ():
            axes.plot(x, run.y, lw=0.5, alpha=0.4, color=colour)
        told = f"{label} ({first.shaded_label} {low:g} to {high:g})" if first.shaded else label
        axes.plot(x, mean, lw=1.4, color=colour, label=told if several else None)
        outside = several & ((x < low) | (x > high))
        axes.plot(x[~outside], mean[~outside], "o", ms=4, color=colour)
        axes.plot(x[outside], mean[outside], "o", ms=4, color=colour, mfc="white")
        if first.marked is not None and number == 0:
            axes.axhline(first.marked, color=plotting.INK, lw=0.6, ls="--", label=first.marked_label)
        axes.set(xlabel=first.x_label, ylabel=first.y_label)
    if several:
        figure.legend(*axes.get_legend_handles_labels(), fontsize=7, loc="outside upper left")
    elif axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
    return figure
