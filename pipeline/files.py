"""Files that are either whole or absent: everything is written beside its place, then renamed into it."""

import csv
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.workplace import replace, workplace

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_directory(path: Path | str, marker: str | None = None) -> Iterator[Path]:
    """Yield a fresh folder beside `path`; it replaces `path` on success and vanishes on any failure.

    What a process that was killed left there goes when the next one begins. A link stays one: what it leads to is
    replaced.

    Args:
        path: the folder.
        marker: as of `expect_own_folder`.

    Raises:
        UserError: the folder would replace what is not of its kind.
    """
    expect_own_folder(path, marker)
    shown, path = Path(path), Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(shown, path), workplace(path) as place:
        beside = place / path.name
        beside.mkdir()
        with _naming(shown, beside):
            yield beside
        replace(path, beside, place)


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` with the same suffix; what was written there is renamed on success."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with _naming(path, beside):
            yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def expect_own_folder(path: Path | str, marker: str | None = None) -> None:
    """Hold that a folder can be written or replaced, without losing what is not of its kind.

    Args:
        path: the folder.
        marker: a file that every folder of this kind holds; None where none is to be replaced.

    Raises:
        UserError: it is a file, holds something but not the marker, is the working directory or above it, or the
            system refuses to have it made or moved.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{path}: is a file; expected a folder, or nothing, where a folder is to be written")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: is the working directory, or above it; expected another folder to write")
    held = sorted({entry.name for entry in folder.iterdir()} - {".gitignore"}) if folder.exists() else []
    if held and marker not in held:
        earlier = f", or that of an earlier run, with {marker} in it" if marker else ""
        raise UserError(f"{path}: holds {held[0]}; expected a folder that is new or empty{earlier}")
    _expect_writable(folder)


def expect_new_folder(path: Path | str) -> None:
    """Hold that a folder can be filled there without losing what somebody has.

    Raises:
        UserError: there is already something in it, or it is a file.
    """
    folder = Path(path)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{path}: already there; expected a folder that is new or empty")


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write each file at its path in `folder`, and the folders on the way; for a folder that is atomic itself."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def repository_root() -> Path:
    """Where DVC's repository lies, also for an experiment that DVC runs in a temporary copy of it."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def write_json(path: Path | str, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON, atomically. NaN and infinities raise ValueError: JSON has none."""
    with atomic_file(path) as beside:
        beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path | str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing, is not JSON, or holds something other than an object.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected a file that an earlier stage writes") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or a number of too many digits
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a JSON {type(content).__name__}; expected an object")
    return content


def sha256_of(path: Path | str) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> str:
    """One sha256 over the bytes of files, in the order in which they are given."""
    return hashlib.sha256("".join(sha256_of(path) for path in paths).encode()).hexdigest()


def write_csv(path: Path | str, rows: Sequence[Mapping[str, float | str]]) -> None:
    """Write rows, atomically; the first one names the columns. `read_csv` reads them back where all are numbers."""
    with atomic_file(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path | str) -> list[dict[str, float]]:
    """Read what `write_csv` wrote.

    Raises:
        UserError: the file is missing, or a value is not a number.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected a file that an earlier stage writes") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not a table of numbers ({error})") from None


def _expect_writable(folder: Path) -> None:
    """Try what `atomic_directory` will do, as deep as there are folders already, and leave nothing there."""
    try:
        place = folder.resolve()
        if place.exists() and (place.is_mount() or not os.access(place, os.W_OK)):
            raise UserError(
                f"{folder}: is read-only or a mount point; expected a folder that can be moved and replaced"
            )
        while not place.parent.exists():
            place = place.parent
        with workplace(place):
            pass
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise UserError(f"{folder}: {reason}; expected a place where a folder can be made") from None


@contextmanager
def _naming(path: Path, beside: Path) -> Iterator[None]:
    """Errors of the system name what was to be written: a full disk names nothing, others what is hidden beside it."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE and error.filename is None:
            error.filename = str(path)
        elif isinstance(error.filename, str | Path) and Path(error.filename).is_relative_to(beside):
            error.filename = str(path / Path(error.filename).relative_to(beside))
        raise
