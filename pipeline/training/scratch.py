"""Where a training that is not finished lies, so that a killed one goes on: a folder that no stage declares.

Its name is a hash of all that shapes the training, so another setting never finds it. State files are written beside
their place and renamed; the last two are kept, and the newest that is whole is the one that counts.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

LOCK = "lock"
_KEPT = 2
_POLL_SECONDS = 0.5
_CONTENT = "content"  # the tensor that holds all but the tensors, as UTF-8


@dataclass(frozen=True)
class State:
    """A training at one moment: its tensors, and what else there is to know, as JSON has it."""

    tensors: Mapping[str, Tensor]
    content: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        content = torch.frombuffer(bytearray(json.dumps(self.content).encode()), dtype=torch.uint8)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}
        return save(tensors | {_CONTENT: content})

    @classmethod
    def from_bytes(cls, file: bytes) -> Self:
        """What `to_bytes` wrote.

        Raises:
            SafetensorError: the file is truncated, or not of that format.
            ValueError, KeyError: it is another safetensors file.
        """
        tensors = load(file)
        content = json.loads(tensors.pop(_CONTENT).numpy().tobytes())
        return cls(tensors, content)


class Scratch:
    """The folder of one unfinished training; at most one process at a time works in it.

    A second process waits until the first is done: of queued experiments that differ in later stages alone, two workers
    may start the same training. It is then trained twice, to the same weights.

    Args:
        folder: where the trainings of this repository lie.
        name: of this training; another name is another training.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self._lock, self._told = FileLock(self.folder / LOCK, timeout=0), False
        while not self._acquired():
            time.sleep(_POLL_SECONDS)

    def save(self, state: State) -> bool:
        """Write one state file, whole or not at all; a disk that refuses it is told of, and training goes on."""
        number = max(self._numbers(), default=0) + 1
        beside, place = self.folder / f".{number}.writing", self._file(number)
        try:
            _write(beside, state.to_bytes())
            beside.replace(place)
        except OSError as error:
            beside.unlink(missing_ok=True)
            print(f"warning: {place}: {error.strerror}; training goes on without this checkpoint", file=sys.stderr)
            return False
        for old in sorted(self._numbers())[:-_KEPT]:
            self._file(old).unlink(missing_ok=True)
        return True

    def load(self) -> State | None:
        """The newest state that is whole; None where there is none. A damaged file is told of and passed over."""
        for number in sorted(self._numbers(), reverse=True):
            try:
                return State.from_bytes(self._file(number).read_bytes())
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                reason = " ".join(str(error).split())
                print(f"warning: {self._file(number)}: not a whole checkpoint ({reason}); passed over", file=sys.stderr)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def remove(self) -> None:
        """The training has finished: nothing of it is left here."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _acquired(self) -> bool:
        """Whether the lock is ours; whoever ends its training removes the folder, and the lock in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            if not self._told:
                print(f"{self.folder}: another process trains with the same params, data and code; waiting", flush=True)
            self._told = True
            return False
        except FileNotFoundError:
            return False
        if not Path(self._lock.lock_file).exists():  # it was removed between opening and locking it
            self._lock.release()
            return False
        return True

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08}.safetensors"

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self.folder.glob("*.safetensors") if path.stem.isdecimal()]


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or a rename could outlive what was written
