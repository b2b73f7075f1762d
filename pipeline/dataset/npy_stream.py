"""The bytes of a .npy file, or of an array in a .npz file, as a stream of rows: memory stays flat, compressed or not.

Nothing is unpickled, and whatever a broken file makes numpy, zip or zlib raise is told in one line.
"""

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline import npy
from pipeline.dataset.store import DAMAGED
from pipeline.errors import UserError, one_line


@dataclass(frozen=True)
class ArrayHeader:
    """What an array's header says; `name` is the file, and the key in it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool


def keys(path: Path) -> list[str]:
    """Names of the arrays in a .npz file.

    Raises:
        UserError: it is no such file.
    """
    with _readable(str(path)), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Whatever a broken file raises on its way through zip, zlib and numpy's header is the user's to know."""
    try:
        yield
    except UserError:
        raise
    except (*DAMAGED, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        reason = one_line(error) or type(error).__name__
        raise UserError(f"{name}: not readable as a .npy or .npz file, or truncated ({reason})") from None


@contextmanager
def _open_stream(path: Path, key: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes of one array, and how many there are."""
    if key is None:
        with path.open("rb") as file:
            yield file, path.stat().st_size
    else:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            yield member, archive.getinfo(f"{key}.npy").file_size


def read_header(path: Path, key: str | None) -> ArrayHeader:
    """What an array says of itself; `key` names it in a .npz file, None stands for a .npy file.

    Raises:
        UserError: the file is broken, or of another size than the header says, or holds Python objects.
    """
    name = str(path) if key is None else f"{path}[{key}]"
    with _readable(name), _open_stream(path, key) as (stream, size):
        header = _parse_header(stream, name)
        _check_type(header)
        expected = stream.tell() + math.prod(header.shape) * header.dtype.itemsize
        if size != expected:
            raise UserError(f"{name}: is {size:,} bytes; expected {expected:,} as its header says")
    return header


def _parse_header(stream: IO[bytes], name: str) -> ArrayHeader:
    shape, fortran_order, dtype = npy.read_header(stream)
    return ArrayHeader(name, shape, dtype, fortran_order)


def _check_type(header: ArrayHeader) -> None:
    if header.dtype.hasobject:
        raise UserError(f"{header.name}: holds Python objects; expected an array of numbers")
    if not header.dtype.itemsize:
        raise UserError(f"{header.name}: holds {header.dtype}, of 0 bytes each; expected an array of numbers or text")
    if header.fortran_order and len(header.shape) > 1:
        raise UserError(f"{header.name}: is in Fortran order; expected C order (numpy.ascontiguousarray)")


def row_bytes(header: ArrayHeader) -> int:
    """Of one row."""
    return math.prod(header.shape[1:]) * header.dtype.itemsize


def read_rows(path: Path, key: str | None, header: ArrayHeader, most: int) -> Iterator[np.ndarray]:
    """The rows of an array, at most so many at a time.

    Raises:
        UserError: the file is broken, or ends too early.
    """
    row_shape, size = header.shape[1:], row_bytes(header)
    left = header.shape[0]
    with _readable(header.name), _open_stream(path, key) as (stream, _):
        _parse_header(stream, header.name)
        while left:
            rows = min(left, most)
            content = stream.read(rows * size)
            if len(content) != rows * size:
                raise UserError(f"{header.name}: ends {left} rows too early; expected {header.shape[0]} rows")
            yield np.frombuffer(content, header.dtype).reshape(rows, *row_shape)
            left -= rows
