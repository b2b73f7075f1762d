"""How the learning rate and beta change over a training: functions of the position alone."""

import math

from pipeline.params import TrainParams
from pipeline.vae.objectives import MANY_SAMPLES


def learning_rate_factor(schedule: str, step: int, steps: int) -> float:
    """The factor on the learning rate before step 0, 1, ... of `steps`; `cosine` falls from 1 to 0."""
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def warmed_up(beta: float, epoch: int, warmup_epochs: int) -> float:
    """beta in epoch 1, 2, ...: it rises linearly from 0 over `warmup_epochs`, constant within an epoch."""
    return beta * (min(1.0, (epoch - 1) / warmup_epochs) if warmup_epochs else 1.0)


def is_warm(params: TrainParams, epoch: int) -> bool:
    """Whether epoch 1, 2, ... trains what params ask for: under the whole beta, or by an objective that has none."""
    return params.objective == "autoencoder" or warmed_up(params.beta, epoch, params.warmup_epochs) == params.beta


def check_choice(params: TrainParams) -> str | None:
    """A warning where the epoch that is kept is chosen by another bound than what is trained; None where it is not."""
    by_epoch = {"keep_epoch": params.keep_epoch == "best", "early_stopping_epochs": params.early_stopping_epochs}
    chosen = [f"train.{name} is {getattr(params, name)!r}" for name, chooses in by_epoch.items() if chooses]
    if params.objective not in MANY_SAMPLES or not chosen:
        return None
    return (
        f"params.yaml: {' and '.join(chosen)} while train.objective is {params.objective!r}: epochs are compared by "
        "the bound of one sample, which may fall while that of several rises; better train.keep_epoch: last and "
        "train.early_stopping_epochs: null"
    )


def check_warmup(params: TrainParams) -> str | None:
    """A warning where the training is over before beta is what params say; None where it is, or where beta is not."""
    epochs, warmup_epochs = params.epochs, params.warmup_epochs
    last = warmed_up(params.beta, epochs, warmup_epochs)
    if is_warm(params, epochs):
        return None
    return (
        f"params.yaml: train.warmup_epochs is {warmup_epochs} while train.epochs is {epochs}: beta ends at {last:g} "
        f"and never reaches train.beta, {params.beta:g}; expected train.warmup_epochs below train.epochs"
    )
