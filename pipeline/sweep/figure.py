"""The rate-distortion plane (Alemi et al. 2018, arXiv 1711.00464): what z costs, and what it leaves to be guessed."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.metrics.figures import STYLE

Row = Mapping[str, float]

COLOURS = ("#0b6fb8", "#d1495b", "#2a9d5c", "#8d5fc2", "#c77d0a", "#4c566a")
MARKERS = "osD^vP"
_LINE_COLOUR = "#b9bec6"
_MARGIN = 0.08
_ROOM = 0.045  # of the frame, for a label
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
        figure = Figure(figsize=(7.0, 5.0), layout="constrained")
        axes = figure.subplots()
        _frame(axes, rows)
        _same_elbo(axes)
        for number, value in enumerate(sorted({row[lines] for row in rows})):
            members = sorted((row for row in rows if row[lines] == value), key=lambda row: row[along])
            _line(axes, members, f"{_short(lines)} {value:g}", number, along)
        axes.set(
            xlabel="rate: KL(q(z|x) || p(z)), nats per image",
            ylabel="distortion: −E[log p(x|z)], nats per image",
            title=f"Rate and distortion on the test split, along {_short(along)}",
        )
        axes.legend(
            loc="upper right", title=f"at the points: {_short(along)}", frameon=True, framealpha=1, edgecolor="w"
        )
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
            f"ELBO −{total:g}",
            (end, total - end),
            textcoords="offset points",
            xytext=(4, 0) if beside else (3, 4),
            ha="left",
            va="center" if beside else "bottom",
            size=7.5,
            color="#7a808a",
        )


def _line(axes: Axes, members: Sequence[Row], label: str, number: int, along: str) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    rate, distortion = ([row[name] for row in members] for name in ("rate", "distortion"))
    axes.plot(rate, distortion, color=colour, marker=marker, markersize=5, linewidth=1.4, label=label)
    for row in _apart(axes, members):
        place = (row["rate"], row["distortion"])
        axes.annotate(f"{row[along]:g}", place, textcoords="offset points", xytext=(5, 5), size=8, color=colour)


def _apart(axes: Axes, members: Sequence[Row]) -> list[Row]:
    """Both ends of a line, and those between whose labels touch no other's."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    chosen: list[Row] = []
    for row in (members[0], members[-1], *members[1:-1]):
        across = ((row["rate"] - other["rate"]) / (right - left) for other in chosen)
        down = ((row["distortion"] - other["distortion"]) / (top - bottom) for other in chosen)
        if all(abs(x) > _ROOM or abs(y) > _ROOM for x, y in zip(across, down, strict=True)):
            chosen.append(row)
    return chosen


def _short(param: str) -> str:
    return param.split(".")[-1]
