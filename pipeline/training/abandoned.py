"""What other trainings left behind: unfinished ones are told of, and after a month they go; finished ones after a week.

A changed param, data set or line of code begins a training anew and leaves the state of the old one behind, which only
the old params, data and code could go on from. What a finished one came to is kept until DVC surely has it, as large as
its checkpoint, of which DVC's cache keeps a copy for good. What is no training's folder is not touched.
"""

import re
import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.training.scratch import FINISHED, LOCK, RUN

KEPT_DAYS = 30
FINISHED_KEPT_DAYS = 7
_SHOWN = 3
_NAME = re.compile("[0-9a-f]{32}")  # what training_name gives
_SUFFIXES = (".safetensors", ".csv", ".writing")


def tidy(ours: Path) -> None:
    """Look through the folders beside `ours`: remove those that nobody wrote to for long, count other unfinished ones.

    Both are told of in a line. A folder in which a process is at work stays, and is none of them.
    """
    others = sorted(path for path in ours.parent.iterdir() if path != ours and _is_training(path) and _is_idle(path))
    finished = [path for path in others if (path / FINISHED).exists()]
    unfinished = [path for path in others if path not in finished]
    _remove_old(finished, "finished", FINISHED_KEPT_DAYS)
    removed = _remove_old(unfinished, "unfinished", KEPT_DAYS)
    kept = [path for path in unfinished if path not in removed and _has_state(path)]
    if kept:
        print(
            f"train: {_count(len(kept), 'unfinished', sum(map(_size, kept)))} of other params, data or code in "
            f"{ours.parent}; removed when untouched for {KEPT_DAYS} days"
        )


def _remove_old(folders: list[Path], kind: str, days: int) -> list[Path]:
    """Those that are gone now, which are told of."""
    sizes = {path: size for path in folders if _days_old(path) > days and (size := _remove(path)) is not None}
    if sizes:
        names = ", ".join(path.name for path in list(sizes)[:_SHOWN]) + (", ..." if len(sizes) > _SHOWN else "")
        print(
            f"train: removed {_count(len(sizes), kind, sum(sizes.values()))} from {folders[0].parent}, "
            f"untouched for more than {days} days ({names})"
        )
    return list(sizes)


def _is_training(folder: Path) -> bool:
    """Whether it is a training's folder and holds nothing else: a user may keep other things beside it, and in it."""
    if not _NAME.fullmatch(folder.name) or not folder.is_dir() or folder.is_symlink():
        return False
    return all(path.is_file() and (path.name in (LOCK, RUN) or path.suffix in _SUFFIXES) for path in _files(folder))


def _is_idle(folder: Path) -> bool:
    """Whether no process is at work; a folder without a state and without a run's key holds nothing, and goes."""
    try:
        with FileLock(folder / LOCK, timeout=0):  # which makes a folder that a process has removed meanwhile
            if _has_state(folder) or (folder / RUN).exists():
                return True
            shutil.rmtree(folder, ignore_errors=True)
    except (Timeout, OSError):
        pass
    return False


def _has_state(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


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
    times = [_stat(path)[1] for path in (folder, *_files(folder)) if path.name != LOCK]
    return (time.time() - max(times)) / 86400


def _size(folder: Path) -> int:
    return sum(_stat(path)[0] for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    """None of a folder that another process has just removed."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _stat(path: Path) -> tuple[int, float]:
    """Bytes, and the time of the last write; of a file that another process has just removed, as if it were new."""
    try:
        status = path.stat()
    except OSError:
        return 0, time.time()
    return status.st_size, status.st_mtime


def _count(number: int, kind: str, size: int) -> str:
    return f"{number} {kind} training{'s' if number != 1 else ''} ({size / 1e6:.1f} MB)"
