"""The header of a .npy file, of bounded length: numpy reads as many bytes as a file says, and judges them then."""

import io
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

MOST_HEADER_BYTES = 2**16  # as many as version 1.0 may have; of a file of version 2.0 it may be 4 GiB


class Header(NamedTuple):
    """What a .npy file says of its array."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def read_header(stream: IO[bytes]) -> Header:
    """The header of a .npy file that `stream` is at the beginning of, and then at the first value.

    Raises:
        ValueError: it is of another version, too long, or none; numpy raises SyntaxError and tokenize.TokenError too.
    """
    version = npy.read_magic(stream)
    if version == (1, 0):
        width, parse = 2, npy.read_array_header_1_0
    elif version == (2, 0):
        width, parse = 4, npy.read_array_header_2_0
    else:
        raise ValueError(f".npy version {version}; expected 1.0 or 2.0")
    length = stream.read(width)
    if (size := int.from_bytes(length, "little")) > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {size:,} bytes; expected at most {MOST_HEADER_BYTES:,}")
    return Header(*parse(io.BytesIO(length + stream.read(size))))
