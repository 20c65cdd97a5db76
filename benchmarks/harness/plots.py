"""Draws bars."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.harness.numbers import plain
from benchmarks.harness.reports import Plot

_COLOURS = ("#4c72b0", "#55a868", "#c44e52", "#8172b3", "#ccb974", "#64b5cd")


def draw(plot: Plot, path: Path) -> None:
    """Write a plot as SVG, whose bytes depend on the values alone."""
    # Without them every run would write other identifiers.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.family": "sans-serif"})
    names = list(next(iter(plot.groups.values())))
    # A colour means something where every group has the same bars.
    coloured = len(names) > 1 and all(list(group) == names for group in plot.groups.values())
    longest = max(len(name) for group in plot.groups.values() for name in group)
    bars = sum(len(group) for group in plot.groups.values())
    figure = Figure(figsize=(8, 1.1 + 0.3 * bars + 0.25 * len(plot.groups)), layout="constrained")
    axes = figure.add_subplot()
    largest = max(value for group in plot.groups.values() for value in group.values())
    position, ticks = 0.0, []
    for group, values in plot.groups.items():
        ticks.append((position + (len(values) - 1) / 2, group))
        for name, value in values.items():
            colour = _COLOURS[names.index(name) if coloured else 0]
            axes.barh(position, value, color=colour, height=0.8)
            label = f"{plain(value)}  {name.replace('`', '')}"
            axes.text(value + largest * 0.01, position, label, va="center", fontsize=8)
            position += 1
        position += 0.7
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    axes.invert_yaxis()
    axes.set_xlim(0, largest * (1.1 + 0.014 * longest))
    axes.set_xlabel(plot.unit)
    axes.set_title(plot.title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    # A long label beside a long bar stands out of the figure: it grows.
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
