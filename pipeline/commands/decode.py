"""`vae decode`: latents to images."""

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.counted import counted
from pipeline.commands.options import EXPORT_FOLDER, Device, Label, Model, Pictures, open_sampler
from pipeline.errors import UserError, one_line

if TYPE_CHECKING:
    import numpy as np

    from pipeline.runtime.pixels import Images
    from pipeline.runtime.sampler import Sampler

MAX_CODES_BYTES = 2**31  # of the array in an .npz, which is read whole; an .npy is mapped and may be larger

_UNREADABLE = (
    *(OSError, ValueError, OverflowError, EOFError, KeyError),
    *(SyntaxError, tokenize.TokenError),  # of a damaged .npy: its header is Python text, and numpy parses it as such
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError),
    RuntimeError,  # what zipfile raises of an encrypted archive, and of one whose compression it does not know
)


def decode(
    codes: Annotated[Path, typer.Argument(metavar="CODES", help="A codes.npz from `vae encode` (its mu), or a z.npy.")],
    output: Pictures = "decoded.png",
    label: Label = None,
    model: Model = EXPORT_FOLDER,
    device: Device = "auto",
) -> None:
    """Map latents back to images."""
    from pipeline.runtime.pictures import check_output, write_images

    z = read_codes(codes)
    check_output(output, len(z))
    sampler = open_sampler(model, device)
    if z.shape[1] != sampler.latent_dim:
        raise UserError(f"{codes}: z is {list(z.shape)}; expected [n, {sampler.latent_dim}], the model's latents")
    write_images(output, decode_in_parts(sampler, z, label), len(z), sampler.image_shape)
    typer.echo(f"wrote {output}: {counted(len(z), 'image')} of the latents in {codes}")


def decode_in_parts(sampler: "Sampler", z: "np.ndarray[Any, Any]", label: str | None) -> "Iterator[Images]":
    """The images of latents [n, latent_dim], uint8 [k, H, W, C] at a time, under a progress bar."""
    from pipeline.commands.progress import track_images

    starts = range(0, len(z), sampler.batch_size)
    parts = (sampler.decode(z[start : start + sampler.batch_size], label) for start in starts)
    return track_images(parts, len(z), "decoding")


def read_codes(path: Path) -> "np.ndarray[Any, Any]":
    """z or mu as numbers [n, latent_dim], n >= 1.

    Raises:
        UserError: the file is missing, damaged, of another kind, too large, or holds another array.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; expected codes.npz, or an .npy of z")
    try:
        z = _mapped(path) if path.suffix.lower() == ".npy" else _zipped(path)
    except _UNREADABLE as error:
        reason = one_line(error, 120) or type(error).__name__
        raise UserError(f"{path}: not readable as codes ({reason}); expected .npz with mu, or .npy of z") from None
    if z.ndim != 2 or not len(z) or z.dtype.kind not in "fiu":
        raise UserError(f"{path}: holds {z.dtype} {list(z.shape)}; expected numbers [n >= 1, latent_dim]")
    return z


def _mapped(path: Path) -> "np.ndarray[Any, Any]":
    import numpy as np

    from pipeline import npy

    with path.open("rb") as file:
        npy.read_header(file)  # refuses one of a length that numpy would read
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _zipped(path: Path) -> "np.ndarray[Any, Any]":
    import numpy as np

    with zipfile.ZipFile(path) as archive, archive.open("mu.npy") as file:
        size, promised = archive.getinfo("mu.npy").file_size, _promised_bytes(file)
    if size > MAX_CODES_BYTES:
        raise ValueError(f"mu has {size:,} bytes, more than {MAX_CODES_BYTES:,}")
    if promised > size:  # numpy would ask for memory for all of them
        raise ValueError(f"mu has {size:,} bytes, its shape promises {promised:,}")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["mu.npy"]  # type: ignore[no-any-return]


def _promised_bytes(file: IO[bytes]) -> int:
    """The size of the array that the header of an .npy file speaks of."""
    from pipeline import npy

    shape, _, dtype = npy.read_header(file)
    return math.prod(shape) * dtype.itemsize
