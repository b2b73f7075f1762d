"""Hidden folders in which results are made, and what of them killed processes left.

Each is locked by the process at work in it, and the system unlocks it however that ends. Where folders have no locks
(Windows, some network file systems) what a killed process left stays.
"""

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_RANDOM = "[a-z0-9_]" * 8  # what mkdtemp puts behind the prefix
_REPLACED = "replaced"


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Yield a fresh hidden folder beside `path`, locked, and remove it; before that, those that were left behind.

    Raises:
        OSError: none can be made; it names `path`.
    """
    for folder in path.parent.glob(f"{glob.escape(_prefix(path))}{_RANDOM}"):
        _remove_if_left(folder, path)
    folder, lock = _locked_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def replace(path: Path, made: Path, place: Path) -> None:
    """Let the folder `made` in a workplace `place` be `path`; what stands there is moved away, and goes with the place.

    A process that is killed between the two leaves it there, from where the next workplace of `path` brings it back.
    """
    if path.exists():
        path.replace(place / _REPLACED)
    made.replace(path)


def _prefix(path: Path) -> str:
    """Of the names of a path's workplaces: nothing that a person would call a folder, for they are removed."""
    return f".{path.name}.being-written."


def _locked_folder(path: Path) -> tuple[Path, int | None]:
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        except OSError as error:
            error.filename = str(path)
            raise
        lock = None
        with suppress(OSError):  # no locks there
            lock = _lock(folder, wait=True)
        if folder.exists():
            return folder, lock
        _unlock(lock)  # another process came first, and took it for one that was left


def _remove_if_left(folder: Path, path: Path) -> None:
    with suppress(OSError):  # a process is at work in it, or it is gone, or there are no locks
        lock = _lock(folder, wait=False)
        if lock is not None:
            if not path.exists() and (folder / _REPLACED).exists():
                (folder / _REPLACED).replace(path)
            shutil.rmtree(folder, ignore_errors=True)
            _unlock(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """What `_unlock` takes; None where a system has no such locks.

    Raises:
        OSError: the folder cannot be locked, or without `wait` another process has it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(lock)
        raise
    return lock


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
