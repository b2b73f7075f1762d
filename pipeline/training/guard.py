"""Holds back every step from the first one on whose gradient is not finite."""

import math

import torch
from torch import Tensor

_STEPS_BETWEEN_LOOKS = 50  # at a GPU, which would have to stop and wait


class StepGuard:
    """Knows the norms of an epoch's gradients.

    On the CPU each norm is looked at. A GPU is not waited for: it holds the steps back by itself, and is asked now and
    then whether it did.
    """

    def __init__(self, device: torch.device) -> None:
        self._waits = device.type == "cpu"
        self._largest = torch.zeros((), device=device)
        self._halted = torch.zeros((), device=device)
        self._taken = torch.zeros((), dtype=torch.int64, device=device)
        self._looked = 0

    @property
    def refused(self) -> Tensor | None:
        """1 on the device once a step is held back, else 0; None where `admit` has said so already."""
        return None if self._waits else self._halted

    @property
    def applied(self) -> Tensor | None:
        """1 - `refused`."""
        return None if self._waits else 1 - self._halted

    @property
    def is_holding_back(self) -> bool:
        """Whether a step was held back; a GPU is waited for."""
        return self._halted.item() > 0

    @property
    def largest(self) -> Tensor:
        """The largest norm of a step that was taken, []."""
        return self._largest

    def begin(self, step: int, largest: Tensor | None = None) -> None:
        """Step `step` of an epoch comes next; `largest` is what it has seen so far, by default what is known."""
        self._taken.fill_(step)
        self._halted.zero_()
        self._looked = step
        if largest is not None:
            self._largest.copy_(largest)

    def admit(self, norm: Tensor) -> bool:
        """Whether a step with this norm of its gradient, [], may be taken; True unseen on a GPU."""
        if self._waits:
            value = norm.item()
            if not math.isfinite(value):
                self._halted.fill_(1)
                return False
            if value > self._largest:
                self._largest.fill_(value)
            return True
        # NaN is not below infinity either; `isfinite` would be four kernels in place of one.
        self._halted = torch.maximum(self._halted, (~(norm < math.inf)).to(torch.float32))
        self._largest = torch.where(self._halted > 0, self._largest, self._largest.maximum(norm))
        self._taken += (1 - self._halted).to(torch.int64)
        return True

    def held_back(self, step: int, last: bool) -> int | None:
        """The step of the epoch that was held back, if step `step` is one at which to look; None if none was."""
        if self._waits:
            return step if self._halted.item() else None
        if not last and step + 1 - self._looked < _STEPS_BETWEEN_LOOKS:
            return None
        self._looked = step + 1
        return int(self._taken.item()) if self._halted.item() else None
