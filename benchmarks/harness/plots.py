"""Bar charts."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.numbers import format_number

_COLOURS = ("#4c72b0", "#55a868", "#c44e52", "#8172b3", "#ccb974", "#64b5cd", "#8c8c8c")


@dataclass(kw_only=True)
class Plot:
    """Horizontal bars in groups."""

    title: str
    unit: str
    groups: dict[str, dict[str, float]]
    """Values by group, then by name."""

    def draw(self, path: Path) -> None:
        """Write the plot as SVG. The same values give the same bytes."""
        import matplotlib as mpl  # noqa: PLC0415  # the import takes a second
        from matplotlib.figure import Figure  # noqa: PLC0415

        # Without a fixed salt the identifiers differ in every run.
        mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.family": "sans-serif"})
        names = list(next(iter(self.groups.values())))
        # Bars are coloured by name only if every group has the same names.
        coloured = len(names) > 1 and all(list(group) == names for group in self.groups.values())
        longest = max(len(name) for group in self.groups.values() for name in group)
        bars = sum(len(group) for group in self.groups.values())
        figure = Figure(figsize=(8, 1.1 + 0.3 * bars + 0.25 * len(self.groups)), layout="constrained")
        axes = figure.add_subplot()
        largest = max(value for group in self.groups.values() for value in group.values())
        position, ticks = 0.0, []
        for group, values in self.groups.items():
            ticks.append((position + (len(values) - 1) / 2, group))
            for name, value in values.items():
                colour = _COLOURS[names.index(name) if coloured else 0]
                axes.barh(position, value, color=colour, height=0.8)
                label = f"{format_number(value)}  {name.replace('`', '')}"
                axes.text(value + largest * 0.01, position, label, va="center", fontsize=8)
                position += 1
            position += 0.7
        axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
        axes.invert_yaxis()
        axes.set_xlim(0, largest * (1.1 + 0.014 * longest))
        axes.set_xlabel(self.unit)
        axes.set_title(self.title, loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        # Extend the figure for a long label beside a long bar.
        figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
