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

from mlfs.core.numerics import BoolArray

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
COLUMN = (6.4, 3.2)  # inches: as wide as a page's column


def use() -> None:
    """Make the book's style the default of every figure that follows."""
    plt.rcParams.update(
        {
            "figure.figsize": COLUMN,
            "hatch.linewidth": 0.6,
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


def shade(axes: Axes, where: BoolArray, label: str) -> None:
    """Tint and hatch the stretches of time at which `where` (T,) is true."""
    edges = np.flatnonzero(np.diff(np.r_[False, where, False]))
    for start, end in edges.reshape(-1, 2):
        axes.axvspan(
            start - 0.5,
            end - 0.5,
            facecolor="#F6E3C5",
            edgecolor=ORANGE,
            hatch="//",
            linewidth=0,
            zorder=0,
            label=label,
        )
        label = "_nolegend_"
