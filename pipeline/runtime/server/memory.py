"""Memory of a process that serves for months: what a large request took goes back to the system once it is answered."""

import ctypes
import sys
from contextlib import suppress

LARGE_BLOCK = 2**18
"""Bytes; a block of this size or more is mapped by itself, and unmapped when it is freed."""

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h


def keep_heap_small() -> None:
    """Give all threads one heap, which holds no large blocks. To be called before there are threads.

    glibc's malloc gives each thread a heap of its own, and raises the size from which blocks are mapped by themselves
    whenever such a block is freed, up to 32 MiB. Bodies, pictures and batches then lie in many heaps, whose holes are
    never given back: memory grows for as long as some thread may meet a larger request than before. Systems with
    another C library are left as they are.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
            libc.mallopt(_M_ARENA_MAX, 1)
