"""Pictures for people. Each function returns a matplotlib figure; images are [n, C, H, W] in [0, 1]."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.float32]

TRAIN_COLOUR, VAL_COLOUR = "#8a8f98", "#0b6fb8"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_INCHES_PER_IMAGE = 0.62
DOTS_PER_INCH = 110
_LEAST_WIDTH = 4.6  # inches; narrower than this a title does not fit
_WIDEST = 16.0  # inches, of a figure that grows with the latents
_MOST_NAMED = 50  # dimensions along an axis
_MOST_BARS = 200  # that are drawn one by one


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG without the date and version that would make equal pictures differ."""
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})


def image_grid(images: Array, columns: int, title: str, row_labels: Sequence[str] = ()) -> Figure:
    """Images in rows of `columns`, with a label before each row where labels are given."""
    rows = -(-len(images) // columns)
    picture = mosaic(images, rows, columns)
    label_space = 0.75 if row_labels else 0.1
    scale = max(_INCHES_PER_IMAGE, (_LEAST_WIDTH - label_space - 0.1) / columns)
    width, height = columns * scale, columns * scale * picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(width + label_space + 0.1, height + 0.5))
    size = figure.get_size_inches()
    axes = figure.add_axes((label_space / size[0], 0.1 / size[1], width / size[0], height / size[1]))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if images.shape[-1] < 64 else "auto")
    axes.set_axis_off()
    for row, label in enumerate(row_labels):
        axes.text(-0.012, 1 - (row + 0.5) / rows, label, ha="right", va="center", transform=axes.transAxes, size=8)
    figure.text(label_space / size[0], 1 - 0.24 / size[1], title, size=10, va="center")
    return figure


def reconstructions(originals: Array, reconstructed: Array, columns: int = 12) -> Figure:
    """Originals and their reconstructions in alternating rows, of which the last two may be shorter."""
    columns = min(columns, len(originals))
    rows, image = -(-len(originals) // columns), originals.shape[1:]
    blank = np.ones((rows * columns - len(originals), *image), originals.dtype)
    whole = [np.concatenate([half, blank]).reshape(rows, columns, *image) for half in (originals, reconstructed)]
    alternating = np.stack(whole, axis=1).reshape(-1, *image)
    return image_grid(alternating, columns, "Test images, and their reconstructions", ["image", "recon"] * rows)


def traversals(images: Array, dimensions: Sequence[int], kl: Sequence[float], deviations: Sequence[float]) -> Figure:
    """One row per latent dimension, one column per place of it; the rest of z stays as it was."""
    labels = [f"z[{dimension}]\n{kl[dimension]:.1f} nats" for dimension in dimensions]
    reach = f"from {deviations[0]:g} to {deviations[-1]:g} standard deviations of the prior"
    return image_grid(images, len(deviations), f"One dimension of z moves {reach}; largest KL first", labels)


def nearest_training(samples: tuple[Array, Array], test: tuple[Array, Array]) -> Figure:
    """Samples above their nearest training images, and test images above theirs: all four of one length."""
    return image_grid(
        np.concatenate([*samples, *test]),
        len(samples[0]),
        "Most like a single training image: samples, and test images",
        ["sample", "nearest\ntraining", "test", "nearest\ntraining"],
    )


def learning_curves(rows: Sequence[Mapping[str, float]], kept_epoch: int) -> Figure:
    """ELBO, reconstruction and KL term by epoch, whichever the history has; a dot at the kept epoch."""
    names = [name for name in ("elbo", "recon", "kl") if f"val/{name}" in rows[0]]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(names), 2.7), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            _curve_panel(axes, rows, name, kept_epoch)
        panels[0].legend(loc="lower right")
    return figure


def kl_per_dimension(kl: Sequence[float], variance: Sequence[float], threshold: float) -> Figure:
    """The KL of each dimension, largest first; dimensions that are not active are pale."""
    order = np.argsort(kl)[::-1]
    colours = [VAL_COLOUR if variance[dimension] > threshold else "#cfd4da" for dimension in order]
    with mpl.rc_context(STYLE | {"axes.grid.axis": "y"}):
        figure = Figure(figsize=(min(max(3.4, 0.24 * len(kl) + 1), _WIDEST), 2.7), layout="constrained")
        axes = figure.subplots()
        if len(kl) <= _MOST_BARS:
            axes.bar(range(len(kl)), np.asarray(kl)[order], color=colours, width=0.75)
        else:
            for colour in dict.fromkeys(colours):
                shown = np.asarray(colours) == colour
                axes.stairs(np.where(shown, np.asarray(kl)[order], 0), fill=True, color=colour)
        named = len(kl) <= _MOST_NAMED
        if named:
            axes.set_xticks(range(len(kl)), [str(dimension) for dimension in order], size=7)
        axes.set(
            xlabel="dimension of z" if named else "rank of the dimension by its KL",
            ylabel="KL (nats)",
            title="KL to the prior, mean over test images",
        )
    return figure


def importance_bound(metrics: Mapping[str, float]) -> Figure:
    """The importance bound along its number of samples, over what it is at the last: flat where it has converged."""
    curve = sorted((int(name.removeprefix("test/nll_iw")), nll) for name, nll in metrics.items() if _is_bound(name))
    sizes, nats = zip(*curve, strict=True)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.plot(sizes, nats, "o-", color=VAL_COLOUR, ms=4, linewidth=1.4, clip_on=False)
        axes.axhline(nats[-1], color=TRAIN_COLOUR, linewidth=0.8, linestyle="--")
        for size, value in curve[:-2] + curve[-1:]:  # K/2 stands too near to K for its number
            axes.annotate(f"{value:.2f}", (size, value), xytext=(3, 5), textcoords="offset points", size=8)
        axes.set(xscale="log", xlim=(sizes[0] / 1.3, sizes[-1] * 2.2), ylim=(None, max(nats) + 0.12 * np.ptp(nats)))
        axes.set_xticks([size for size in sizes if size not in sizes[-2:-1]], minor=False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="samples of z for each image, K", ylabel="bound on -log p(x) (nats)")
        axes.set_title("The importance bound, mean over test images")
    return figure


def manifold(images: Array, columns: int) -> Figure:
    """The decoder over a grid of a two-dimensional z (arXiv 1312.6114, Figure 4)."""
    return image_grid(images, columns, "The manifold: z at equal steps of the prior's probability")


def mosaic(images: Array, rows: int, columns: int) -> Array:
    """[n, C, H, W] -> one picture [rows * (H + 1), columns * (W + 1), C or none], with a line between."""
    count, channels, height, width = images.shape
    cells = np.ones((rows * columns, channels, height + 1, width + 1), np.float32)
    cells[:count, :, :height, :width] = images
    grid = cells.reshape(rows, columns, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    picture = grid.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    return picture[..., 0] if channels == 1 else picture


def _is_bound(name: str) -> bool:
    return name.removeprefix("test/nll_iw").isdigit()


def _curve_panel(axes: Axes, rows: Sequence[Mapping[str, float]], name: str, kept_epoch: int) -> None:
    epochs = [row["epoch"] for row in rows]
    for split, colour in (("train", TRAIN_COLOUR), ("val", VAL_COLOUR)):
        axes.plot(epochs, [row[f"{split}/{name}"] for row in rows], color=colour, label=split, linewidth=1.4)
    axes.plot(kept_epoch, rows[kept_epoch - 1][f"val/{name}"], "o", color=VAL_COLOUR, ms=5, label="kept")
    values = [row[f"{split}/{name}"] for row in rows[len(rows) // 20 :] for split in ("train", "val")]
    margin = 0.05 * (max(values) - min(values)) or 1.0  # the first epochs would flatten all the others
    axes.set_ylim(0 if name == "kl" else min(values) - margin, max(values) + margin)
    axes.set(title={"elbo": "ELBO", "recon": "recon", "kl": "KL"}[name] + " (nats)", xlabel="epoch")
