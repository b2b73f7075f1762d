"""The scans of a JPEG, counted before it is decoded: a small file of very many keeps a decoder busy for hours."""

import re
from typing import IO

MOST_SCANS = 100
"""Of a progressive JPEG: libjpeg writes 10, and each costs as much time as the first, however few its bytes are."""


_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")  # those between that stand alone, among them restarts, are passed
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA


def refuse_many_scans(file: IO[bytes]) -> None:
    """Hold that an opened JPEG may be decoded; the file stands where it stood.

    Raises:
        ValueError: it has more than MOST_SCANS scans.
    """
    start = file.tell()
    file.seek(0)
    scans = _count_scans(file.read())
    file.seek(start)
    if scans > MOST_SCANS:
        raise ValueError(f"a JPEG of {scans} scans, expected at most {MOST_SCANS}")


def _count_scans(content: bytes) -> int:
    """As a decoder finds them: from marker to marker, past the segments between, to the end of the image.

    What a segment holds (a preview) and what follows the image (a phone's film) is nothing that a decoder reads.
    """
    scans, place = 0, 0
    while found := _MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN
        if marker != _START_OF_IMAGE:
            place += int.from_bytes(content[place : place + 2], "big")
    return scans
