"""The one kind of error that a person at the terminal can mend, what its line may hold, and how a stage shows it."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class UserError(ValueError):
    """Something the user gave is wrong. Its text is one line: what was found, where, what was expected."""


class SharedError(UserError):
    """One that every rank of a training meets at the same moment; the first of them tells of it."""


class Stopped(Exception):  # noqa: N818  # it is no error
    """Somebody asked the stage to stop, and it has put its work into safety; the text says where it stands.

    Attributes:
        code: the exit code of the process, 128 + the number of the signal.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def one_line(error: BaseException | str, most: int | None = None) -> str:
    """The text of an error without line breaks, of at most so many characters; empty where it has none."""
    return " ".join(str(error).split())[:most]


def shown(name: str) -> str:
    """A name as it may be printed, a file's or a class's: on one line, and in any encoding."""
    return name if name.isprintable() else ascii(name)


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; a user's mistake ends as one line on stderr and exit code 1, never as a traceback.

    So does what the operating system refuses of a named file: no permission, a full disk, a folder in the way. SIGTERM
    ends it as Ctrl-C does, with what it was writing cleared away.
    """
    try:
        with _stopped_by_sigterm():
            main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        path = error.filename2 or error.filename  # of a rename, where it was to go
        if path is None:
            raise
        print(f"error: {path}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        print("stopped by the user", file=sys.stderr)
        sys.exit(130)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    def on_signal(number: int, _frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name, 128 + number)

    if threading.current_thread() is not threading.main_thread():  # no other may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
