"""SIGINT and SIGTERM as a wish that a training looks at between two steps; a second one ends it at once.

Before the first step and after the last one there is nothing to save: SIGTERM then ends the stage with a line, as
SIGINT does anyway.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopWish:
    """Whether somebody asked the training to stop.

    Attributes:
        signal: the number of the signal that did; None so far.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def stopped(self, where: str) -> Stopped:
        """The exception that ends the stage; `where` says what was saved."""
        number = self.signal or signal.SIGTERM
        return Stopped(f"{signal.Signals(number).name}: {where}", 128 + number)


@contextmanager
def ended_by_sigterm(told: bool = True) -> Iterator[None]:
    """SIGTERM ends the block wherever it is; with a line if `told`, which the first of several ranks is.

    Raises:
        Stopped: by SIGTERM.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not told:
            sys.exit(128 + number)
        where = "outside of the steps; what was saved is kept, and the same command goes on from there"
        raise Stopped(f"{signal.Signals(number).name}: {where}", 128 + number)

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """Listen for the duration of a block."""
    wish = StopWish()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def on_signal(number: int, _frame: FrameType | None) -> None:
        wish.signal = number
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
