"""The paper's Figures 2 to 5, drawn from tables of curves and from trained models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from pipeline.metrics.figures import DOTS_PER_INCH, STYLE, mosaic
from pipeline.metrics.latents import prior_quantiles
from pipeline.vae.model import VAE

Row = Mapping[str, Any]

ALGORITHMS = {"elbo": ("AEVB", "#0b6fb8"), "wake_sleep": ("wake-sleep", "#d1495b"), "mcem": ("MCEM", "#3a9b5c")}
SPLITS = {"test": "-", "train": ":"}
_PANEL, _WIDE = (2.2, 2.6), 3.2  # inches; the width of one panel or two
_BELOW = 0.1  # of the measurements, the lowest, which may lie below the frame: the steep beginning flattens all others
_GAP, _TITLE = 0.12, 0.25  # inches, around pictures and above them
_GRID, _SAMPLES = 18, 8  # columns
_SEED = 0


def bound_curves(rows: Sequence[Row]) -> Figure:
    """Figure 2: the lower bound against the training samples seen, a panel for each number of latents."""
    bounded = [row for row in rows if "test_elbo" in row]  # Monte Carlo EM has no bound
    return _panels(bounded, "model.latent_dim", lambda value: f"$N_z$ = {value:g}", "elbo", "lower bound (nats)")


def likelihood_curves(rows: Sequence[Row]) -> Figure:
    """Figure 3: the marginal likelihood against the training samples seen, a panel for each size of the set."""
    return _panels(
        rows, "prepare.train_images", lambda value: f"N = {value:,.0f}", "log_p", "marginal likelihood (nats)"
    )


def manifold(model: VAE) -> Figure:
    """Figure 4: the decoder over a grid of a two-dimensional z."""
    return _pictures({"z at equal steps of the prior's probability": (model, prior_quantiles(_GRID))}, _GRID)


def samples(models: Mapping[int, VAE]) -> Figure:
    """Figure 5: pixel means of z from the prior, a picture for each model by its number of latents."""
    seeded = {dim: torch.Generator().manual_seed(_SEED) for dim in sorted(models)}
    drawn = {f"{dim}-D": (models[dim], models[dim].prior.sample(_SAMPLES**2, seeded[dim])) for dim in seeded}
    return _pictures(drawn, _SAMPLES)


def _panels(rows: Sequence[Row], param: str, title: Callable[[float], str], quantity: str, label: str) -> Figure:
    """A panel for each value of a param that the rows have, all with one axis of nats."""
    values = sorted({row[param] for row in rows})
    with mpl.rc_context(STYLE):
        width = _PANEL[0] if len(values) > 2 else _WIDE
        figure = Figure(figsize=(width * len(values) + 0.6, _PANEL[1] + 0.5), layout="constrained")
        panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
        for axes, value in zip(panels, values, strict=True):
            _curves(axes, [row for row in rows if row[param] == value], quantity)
            axes.set(xscale="log", title=title(value))
            axes.xaxis.set_minor_formatter(NullFormatter())
        measured = sorted(row[f"{split}_{quantity}"] for row in rows for split in SPLITS)
        low, high = measured[int(_BELOW * len(measured))], measured[-1]
        panels[0].set_ylim(low, high + 0.05 * (high - low or 1.0))
        panels[0].set_ylabel(label)
        figure.supxlabel("training samples seen", size=9)
        lines, names = panels[0].get_legend_handles_labels()
        columns = len(names) if len(values) > 2 else len(names) // len(SPLITS)
        figure.legend(lines, names, loc="outside upper center", ncols=columns)
    return figure


def _curves(axes: Axes, rows: Sequence[Row], quantity: str) -> None:
    for objective, (name, colour) in ALGORITHMS.items():
        members = sorted((row for row in rows if row["train.objective"] == objective), key=lambda row: row["samples"])
        if not members:
            continue
        for split, style in SPLITS.items():
            seen, values = ([row[column] for row in members] for column in ("samples", f"{split}_{quantity}"))
            axes.plot(seen, values, color=colour, linestyle=style, linewidth=1.4, label=f"{name} ({split})")


def _pictures(drawn: Mapping[str, tuple[VAE, torch.Tensor]], columns: int) -> Figure:
    """Pixel means of each model's z, a square of them beside the next, one dot of the figure for each pixel."""
    with torch.no_grad():
        pictures = {
            title: mosaic(model.mean(z).numpy(), len(z) // columns, columns) for title, (model, z) in drawn.items()
        }
    height, width = (side / DOTS_PER_INCH for side in next(iter(pictures.values())).shape[:2])
    across, down = len(pictures) * (width + _GAP) + _GAP, height + _TITLE + _GAP
    figure = Figure(figsize=(across, down))
    for number, (title, picture) in enumerate(pictures.items()):
        left = _GAP + number * (width + _GAP)
        axes = figure.add_axes((left / across, _GAP / down, width / across, height / down))
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        figure.text(left / across, (height + 1.5 * _GAP) / down, title, size=9)
    return figure
