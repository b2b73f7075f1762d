"""Options that several commands share, described once. Nothing heavy is imported: `vae --help` reads this."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.runtime.sampler import Sampler
    from pipeline.runtime.session import Device as DeviceName
    from pipeline.runtime.variants import Variant as VariantName

EXPORT_FOLDER = Path("models/export")
DEMO_FOLDER = Path(__file__).parents[1] / "runtime" / "demo"


def choose_model(given: Path | None, demo: bool, option: str = "--model") -> Path:
    """The model that was asked for: the one given by `option`, the demo, or else the default export folder.

    Raises:
        UserError: both were asked for, or neither and there is no export.
    """
    if demo and given is not None:
        raise UserError(f"--demo and {option} are both given; expected one of them")
    if demo:
        return DEMO_FOLDER
    return expect_export(EXPORT_FOLDER) if given is None else given


def expect_export(folder: Path) -> Path:
    """The folder, if there is one, or if it is not the default: then who opens it says what is wrong.

    Raises:
        UserError: it is the default, and nothing has been exported yet.
    """
    if folder == EXPORT_FOLDER and not folder.exists():
        raise UserError(
            f"{folder}: not found; expected what `make repro` exports "
            "(`vae sample --demo` and `vae serve --demo` work without)"
        )
    return folder


def open_sampler(model: Path, device: str, variant: str | None = None, spin_us: int | None = None) -> "Sampler":
    """The model on a device, in float32 or a variant; Sampler checks the names of both.

    Raises:
        UserError: a file is missing, damaged or not one of ours, or the device is unknown or not there.
    """
    from pipeline.runtime.sampler import Sampler

    named = cast("VariantName | None", variant)
    return Sampler(model, cast("DeviceName", device), variant=named, spin_us=spin_us)


Photos = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGES",
        help="Images, and folders of images at any depth (PNG, JPEG, WebP or BMP), but for hidden ones.",
    ),
]
Pictures = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="FILE", help="A grid.png, an images.npy, or a folder/ of PNG files to write."
    ),
]
Resize = Annotated[bool, typer.Option("--resize", help="Stretch images of another size to the model's.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that are no images, and name them.")]
Temperature = Annotated[float, typer.Option(help="Spread of the latents; 1 is the model's own.")]
Label = Annotated[
    str | None, typer.Option(metavar="CLASS", help="Of a conditional model: the class, by name or index.")
]
Model = Annotated[
    Path,
    typer.Option(metavar="FOLDER", help="Export folder, or models:/NAME@champion.", callback=expect_export),
]
SamplerModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="PATH",
        help="Export folder, one sampler.onnx, or models:/NAME@champion.",
        show_default=str(EXPORT_FOLDER),
    ),
]
Demo = Annotated[bool, typer.Option("--demo", help="Use the small sampler of digits that comes with vae.")]
Variant = Annotated[
    str | None, typer.Option(metavar="NAME", help="int8 or fp16: the faster copy, where the folder holds one.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or tensorrt.")]
