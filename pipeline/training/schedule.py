"""How the learning rate and beta change over a training: functions of the position alone."""

import math


def learning_rate_factor(schedule: str, step: int, steps: int) -> float:
    """The factor on the learning rate before step 0, 1, ... of `steps`; `cosine` falls from 1 to 0."""
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def warmed_up(beta: float, epoch: int, warmup_epochs: int) -> float:
    """beta in epoch 1, 2, ...: it rises linearly from 0 over `warmup_epochs`, constant within an epoch."""
    return beta * (min(1.0, (epoch - 1) / warmup_epochs) if warmup_epochs else 1.0)
