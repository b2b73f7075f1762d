"""The rate-distortion plane (Alemi et al. 2018, arXiv 1711.00464): what z costs, and what it leaves to be guessed."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from pipeline.metrics.figures import STYLE

Row = Mapping[str, float]

COLOURS = ("#0b6fb8", "#d1495b", "#2a9d5c", "#8d5fc2", "#c77d0a", "#4c566a")
MARKERS = "osD^vP"
_LINE_COLOUR = "#b9bec6"
_MARGIN = 0.08
_SHORTEST = 0.04  # of the frame's width; a shorter line tells nothing


def rate_distortion(rows: Sequence[Row], lines: str, along: str) -> Figure:
    """One line for each value of the param `lines`, on it a point for each of `along`, labelled where there is room.

    Grey lines join what has the same ELBO: rate + distortion = -ELBO.

    Args:
        rows: with the two params, `rate` and `distortion`, in nats.
        lines: dotted name of a param.
        along: dotted name of another.
    """
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(7.6, 5.2), layout="constrained")
        axes = figure.subplots()
        _frame(axes, rows)
        _same_elbo(axes)
        values = sorted({row[lines] for row in rows})
        members = [sorted((row for row in rows if row[lines] == value), key=lambda row: row[along]) for value in values]
        for number, value in enumerate(values):
            _line(axes, members[number], f"{_short(lines)} {value:g}", number)
        axes.set(
            xlabel="rate: KL(q(z|x) || p(z)), nats per image",
            ylabel="distortion: −E[log p(x|z)], nats per image",
        )
        figure.suptitle(
            f"Rate and distortion on the test split; at the points: {_short(along)}", size=10, x=0.01, ha="left"
        )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(values), borderaxespad=0)
        _label_points(figure, axes, members, along)
    return figure


def _frame(axes: Axes, rows: Sequence[Row]) -> None:
    """Limits around the points, so that the lines of equal ELBO know where they end."""
    for name, limit in (("rate", axes.set_xlim), ("distortion", axes.set_ylim)):
        values = [row[name] for row in rows]
        margin = _MARGIN * (max(values) - min(values)) or 1.0
        limit(min(values) - margin, max(values) + margin)


def _same_elbo(axes: Axes) -> None:
    """Lines of equal ELBO over the whole frame, each labelled where it leaves: to the right, or at the bottom."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for total in MaxNLocator(9).tick_values(left + bottom, right + top):
        start, end = max(left, total - top), min(right, total - bottom)
        if end - start < _SHORTEST * (right - left):
            continue
        axes.plot([start, end], [total - start, total - end], color=_LINE_COLOUR, linewidth=0.7, zorder=0)
        beside = end == right
        axes.annotate(
            f"ELBO {0 - total:g}".replace("-", "−"),  # of a density it may be above 0
            (end, total - end),
            textcoords="offset points",
            xytext=(4, 0) if beside else (3, 4),
            ha="left",
            va="center" if beside else "bottom",
            size=7.5,
            color="#7a808a",
        )


def _line(axes: Axes, members: Sequence[Row], label: str, number: int) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axes.plot(*_places(members), color=colour, marker=marker, markersize=5, linewidth=1.4, label=label)


def _label_points(figure: Figure, axes: Axes, lines: Sequence[Sequence[Row]], along: str) -> None:
    """Each point's value of `along`, both ends of a line first, where it touches no line and no other label."""
    figure.draw_without_rendering()  # what follows is in pixels, which the layout decides
    drawn = [Path(np.column_stack(_places(members))).transformed(axes.transData) for members in lines]
    taken = [text.get_window_extent() for text in axes.texts]
    for number, members in enumerate(lines):
        for row in (members[0], *members[:0:-1]):
            label = axes.annotate(
                f"{row[along]:g}",
                (row["rate"], row["distortion"]),
                xytext=(0, 0),
                textcoords="offset points",
                size=8,
                color=COLOURS[number % len(COLOURS)],
            )
            label.set_in_layout(False)
            if not _put(label, drawn, taken):
                label.remove()


def _put(label: Annotation, drawn: Sequence[Path], taken: list[Bbox]) -> bool:
    """Whether there was room beside its point, right of it or left, above or below."""
    for right, above in ((1, 1), (-1, -1), (1, -1), (-1, 1)):
        label.set(
            position=(5 * right, 4 * above),
            ha="left" if right > 0 else "right",
            va="bottom" if above > 0 else "top",
        )
        box = label.get_window_extent()
        if not box.count_overlaps(taken) and not any(path.intersects_bbox(box, filled=False) for path in drawn):
            taken.append(box)
            return True
    return False


def _places(members: Sequence[Row]) -> tuple[list[float], list[float]]:
    return [row["rate"] for row in members], [row["distortion"] for row in members]


def _short(param: str) -> str:
    return param.split(".")[-1]
