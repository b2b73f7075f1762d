"""Unfinished trainings that nobody went on with: they are told of, and after a month they go.

A changed param, data set or line of code begins a training anew and leaves the state of the old one behind, which only
the old params, data and code could go on from.
"""

import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.training.scratch import LOCK

KEPT_DAYS = 30
_SHOWN = 3


def tidy(ours: Path) -> None:
    """Look through the folders beside `ours`: remove those that nobody wrote to for KEPT_DAYS, and count the others.

    Both are told of in a line. A folder in which a process is at work stays, and is none of them.
    """
    others = sorted(path for path in ours.parent.iterdir() if path.is_dir() and path != ours and _is_idle(path))
    removed = {
        path.name: size for path in others if _days_old(path) > KEPT_DAYS and (size := _remove(path)) is not None
    }
    kept = [path for path in others if path.name not in removed]
    if removed:
        names = ", ".join(list(removed)[:_SHOWN]) + (", ..." if len(removed) > _SHOWN else "")
        print(
            f"train: removed {_count(len(removed), sum(removed.values()))} from {ours.parent}, "
            f"untouched for more than {KEPT_DAYS} days ({names})"
        )
    if kept:
        print(
            f"train: {_count(len(kept), sum(map(_size, kept)))} of other params, data or code in {ours.parent}; "
            f"removed when untouched for {KEPT_DAYS} days"
        )


def _is_idle(folder: Path) -> bool:
    """Whether there is a state and no process at work; a folder without a state holds nothing, and goes."""
    try:
        with FileLock(folder / LOCK, timeout=0):  # which makes a folder that a process has removed meanwhile
            if any(folder.glob("*.safetensors")):
                return True
            shutil.rmtree(folder, ignore_errors=True)
    except (Timeout, OSError):
        pass
    return False


def _remove(folder: Path) -> int | None:
    """Its bytes, or None where a process is at work in it."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            size = _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
            return size
    except (Timeout, OSError):
        return None


def _days_old(folder: Path) -> float:
    """Since the last write; to look whether a lock is held is none."""
    times = [_stat(path)[1] for path in (folder, *folder.iterdir()) if path.name != LOCK]
    return (time.time() - max(times)) / 86400


def _size(folder: Path) -> int:
    return sum(_stat(path)[0] for path in folder.iterdir())


def _stat(path: Path) -> tuple[int, float]:
    """Bytes, and the time of the last write; of a file that another process has just removed, as if it were new."""
    try:
        status = path.stat()
    except OSError:
        return 0, time.time()
    return status.st_size, status.st_mtime


def _count(number: int, size: int) -> str:
    return f"{number} unfinished training{'s' if number != 1 else ''} ({size / 1e6:.1f} MB)"
