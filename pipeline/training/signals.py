"""SIGINT and SIGTERM as a wish that a training looks at between two steps; a second one ends it at once."""

import signal
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
