"""Where a training's states lie, so that a killed one goes on: a folder that no stage declares.

Its name is a hash of all that shapes the training, so another setting never finds it. State files are written beside
their place and renamed; the last two are kept, and the newest that is whole is the one that counts. What a training
came to stays when it has ended, in the place of its states: DVC takes the outputs into its cache only then, and deletes
them before it runs a stage again, so a kill in between would cost the whole training.
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import one_line
from pipeline.files import write_csv

LOCK = "lock"
RUN = "run"
FINISHED = "finished.safetensors"
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


def has_finished(folder: Path, name: str) -> bool:
    """Whether what a training came to lies whole in the folder of this repository's trainings.

    Of the file only the header is read, which knows how long it is to be, and what is no tensor.
    """
    try:
        with safe_open(folder / name / FINISHED, "pt") as file:
            json.loads(file.get_tensor(_CONTENT).numpy().tobytes())
    except (OSError, SafetensorError, ValueError):
        return False
    return True


class Scratch:
    """The folder of one training; at most one process at a time works in it.

    A second process waits until the first is done, and finds what that came to: of queued experiments that differ in
    later stages alone, two workers may start the same training, and a `dvc repro` that was killed leaves its stage at
    work.

    Args:
        folder: where the trainings of this repository lie.
        name: of this training; another name is another training.
        on_wait: called again and again while another process works in it.

    Attributes:
        run_key: names this training's run in the MLflow store, whoever goes on with it.
    """

    def __init__(self, folder: Path, name: str, on_wait: Callable[[], None] = lambda: None) -> None:
        self.folder = folder / name
        self._lock, self._refusals = FileLock(self.folder / LOCK, timeout=0), 0
        while not self._acquired():
            on_wait()
            time.sleep(_POLL_SECONDS)
        self.run_key = self._run_key()

    def save(self, state: State) -> bool:
        """Write one state file, whole or not at all; a disk that refuses it is told of, and training goes on."""
        if not self._put(self._file(max(self._numbers(), default=0) + 1), state):
            return False
        for old in sorted(self._numbers())[:-_KEPT]:
            self._file(old).unlink(missing_ok=True)
        return True

    def finish(self, state: State) -> None:
        """Keep what the training came to in the place of its states; where the disk refuses it, these stay."""
        if self._put(self.folder / FINISHED, state):
            for number in self._numbers():
                self._file(number).unlink(missing_ok=True)

    def finished(self) -> State | None:
        """What `finish` kept; None where there is no such thing, or a damaged one, which is told of."""
        file = self.folder / FINISHED
        return _read(file) if file.exists() else None

    def load(self) -> State | None:
        """The newest state that is whole; None where there is none. A damaged file is told of and passed over."""
        for number in sorted(self._numbers(), reverse=True):
            if (state := _read(self._file(number))) is not None:
                return state
        return None

    def keep_table(self, name: str, rows: Sequence[Mapping[str, float | str]]) -> Path | None:
        """Write rows as a CSV file, for a person to look at; None where the disk refuses it."""
        try:
            write_csv(self.folder / name, rows)
        except OSError:
            return None
        return self.folder / name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _acquired(self) -> bool:
        """Whether the lock is ours; whoever tidies up removes a folder, and the lock in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            self._refusals += 1
            if self._refusals == 2:  # the first may be of one that tidies up, and only looks whether the lock is held
                print(f"{self.folder}: another process trains with the same params, data and code; waiting", flush=True)
            return False
        except FileNotFoundError:
            return False
        if not Path(self._lock.lock_file).exists():  # it was removed between opening and locking it
            self._lock.release()
            return False
        return True

    def _run_key(self) -> str:
        """The one that an earlier process left here, or a new one, which lies here before any run is opened."""
        file = self.folder / RUN
        with suppress(FileNotFoundError):
            if key := file.read_text(encoding="ascii"):
                return key
        key = uuid.uuid4().hex
        with suppress(OSError):  # on a full disk there is nothing that a later process could go on from, either
            beside = self.folder / f".{RUN}.writing"
            beside.write_text(key, encoding="ascii")
            beside.replace(file)
        return key

    def _put(self, place: Path, state: State) -> bool:
        beside = self.folder / f".{place.stem}.writing"
        try:
            _write(beside, state.to_bytes())
            beside.replace(place)
        except OSError as error:
            beside.unlink(missing_ok=True)
            print(f"warning: {place}: {error.strerror}; training goes on without this checkpoint", file=sys.stderr)
            return False
        return True

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08}.safetensors"

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self.folder.glob("*.safetensors") if path.stem.isdecimal()]


def _read(file: Path) -> State | None:
    try:
        return State.from_bytes(file.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        reason = one_line(error)
        print(f"warning: {file}: not a whole checkpoint ({reason}); passed over", file=sys.stderr)
        return None


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or a rename could outlive what was written
