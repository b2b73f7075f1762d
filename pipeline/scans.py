"""The scans of a JPEG, counted before it is decoded: a small file of very many keeps a decoder busy for hours."""

from typing import IO

MOST_SCANS = 100
"""Of a progressive JPEG: libjpeg writes 10, and each costs as much time as the first, however few its bytes are."""


def refuse_many_scans(file: IO[bytes]) -> None:
    """Hold that an opened JPEG may be decoded; the file stands where it stood.

    Raises:
        ValueError: it has more than MOST_SCANS scans.
    """
    start = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")  # within a scan's own data no other byte than 0 follows ff, or a restart
    file.seek(start)
    if scans > MOST_SCANS:
        raise ValueError(f"a JPEG of {scans} scans, expected at most {MOST_SCANS}")
