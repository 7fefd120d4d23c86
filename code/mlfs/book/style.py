"""One look for every figure: sizes that read on a phone, colours that the colour-blind
can tell apart, and a line style or marker beside every colour.

    from mlfs.book import style
    style.use()

Figures are drawn black on white, so that they read anywhere; the site's style sheet
turns their lightness over in dark mode and keeps the hues.
"""

from __future__ import annotations

import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlfs.core.numerics import Array, IntArray

# Okabe & Ito 2008, "Color universal design", without yellow, which fades on white; the
# light ones are darkened until they reach 3:1 against it.
BLUE, ORANGE, GREEN, PINK, SKY, RED, GRAY = (
    "#0072B2",
    "#C87F00",
    "#008A67",
    "#B8558F",
    "#2C8FC4",
    "#C94F00",
    "#707070",
)
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GRAY)
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDE = (6.4, 3.2)  # inches; a page's column
TALL = (6.4, 4.8)


def use() -> None:
    """Make the book's style the default of every figure that follows."""
    plt.rcParams.update(
        {
            "figure.figsize": WIDE,
            "figure.dpi": 130,
            "figure.constrained_layout.use": True,
            "font.size": 12.5,  # reads at the width of a phone
            "axes.titlesize": 12.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=LINES),
            "axes.axisbelow": True,
            "legend.frameon": False,
            "legend.fontsize": 11.5,
            "lines.linewidth": 2.0,
            "lines.markersize": 5.0,
            "image.cmap": "cividis",
        }
    )


def panels(rows: int = 1, columns: int = 1, height: float = 3.2) -> tuple[Figure, Axes]:
    """A figure with a grid of axes, `height` inches a row, as wide as the column."""
    figure, axes = plt.subplots(rows, columns, figsize=(WIDE[0], height * rows))
    return figure, axes


def shade_states(axes: Axes, z: IntArray, names: tuple[str, ...]) -> None:
    """Mark the runs of each state behind a curve: one tint and one hatch a state."""
    hatches = ("", "//", "..", "xx")
    edges = np.flatnonzero(np.diff(z)) + 1
    starts, ends = np.r_[0, edges], np.r_[edges, len(z)]
    for k, name in enumerate(names):
        label = name
        for start, end in zip(starts, ends, strict=True):
            if z[start] == k:
                axes.axvspan(
                    start - 0.5,
                    end - 0.5,
                    facecolor=COLOURS[k],
                    edgecolor=COLOURS[k],
                    alpha=0.18,
                    hatch=hatches[k],
                    linewidth=0,
                    label=label,
                )
                label = "_nolegend_"


def spread(axes: Axes, x: Array, curves: Array, label: str, colour: str = BLUE) -> None:
    """The median of several runs (rows of `curves`) with the band from least to most."""
    axes.plot(x, np.median(curves, axis=0), color=colour, label=label)
    low, high = curves.min(axis=0), curves.max(axis=0)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
