"""A contender's side of bench/train.py: it trains when told to, and tells how long it took.

Imports torch alone, since other interpreters run it too.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

# As the engine sets them, so that fp32 is the same arithmetic in every row.
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

SETTINGS: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
"""What bench/train.py wants: train, test (.npy files), network, batch, epochs, turn, learning_rate, and more."""


class Turns:
    """Trains a number of images, and waits until it is told to go on; its clock runs in between alone."""

    def __init__(self, **about: Any) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # whatever a library prints is no answer
        self._images, self._start = 0, 0.0
        self._answer(about)

    def step(self, images: int) -> None:
        """A step on so many images was taken."""
        self._images += images
        if self._images >= SETTINGS["turn"]:
            self._answer({"images": self._images, "seconds": self._seconds()})

    def end_epoch(self, measure: Callable[[], dict[str, float]]) -> None:
        """An epoch has ended; `measure` gives its test ELBO, off the clock."""
        seconds = self._seconds()
        self._answer({"images": self._images, "seconds": seconds, **measure()})

    def _seconds(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - self._start

    def _answer(self, content: dict[str, Any]) -> None:
        self._answers.write(json.dumps(content) + "\n")
        if not sys.stdin.readline():
            sys.exit()
        self._images, self._start = 0, time.perf_counter()
