"""Small charts beside the JSON files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def bars(
    path: Path, title: str, groups: Sequence[str], series: Mapping[str, Sequence[float]], unit: str
) -> None:
    """Write an SVG with a cluster of bars for each group, one bar for each series.

    The axis is logarithmic when the largest value is more than thirty times the smallest.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(max(6.5, 0.9 * len(groups) + 2), 3.2))
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        places = [at + (number - (len(series) - 1) / 2) * width for at in range(len(groups))]
        drawn = axes.bar(places, values, width, label=name)
        axes.bar_label(drawn, fmt="%.3g", fontsize=7)
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize=10)
    values = [value for row in series.values() for value in row if value > 0]
    if values and max(values) > 30 * min(values):
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
