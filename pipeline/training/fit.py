"""From the first step, or from wherever an earlier process got to, to the weights of the epoch that is kept."""

import copy
import dataclasses
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.errors import SharedError, UserError
from pipeline.training.flat import named_weights
from pipeline.training.nonfinite import NonFiniteError
from pipeline.training.schedule import is_warm
from pipeline.training.scratch import Scratch, State
from pipeline.training.signals import StopWish
from pipeline.training.trainer import Position, Trainer
from pipeline.training.validation import Metrics

MOST_RETURNS = 5
LEARNING_RATE_AFTER_RETURN = 0.5
BATCH = "nonfinite.csv"
_GOOD = "good."  # before the names of the tensors to go back to
_MOST_STEPS_BETWEEN_AGREEMENTS = 16  # of several ranks, on whether to save or to stop: it costs them messages
_SECONDS_BETWEEN_AGREEMENTS = 1.0  # where steps are long: who asked them to stop does not wait for 16


@dataclass
class History:
    """One row of metrics per epoch, and which epochs count."""

    rows: list[Metrics] = field(default_factory=list)
    best_epoch: int = 0
    """Of the best validation score, whichever is kept: of an epoch under the whole beta, once there is one."""
    best_score: float = -math.inf
    kept_epoch: int = 0
    """Whose weights are kept: the best, or the last by `keep_epoch: last`."""
    returns: int = 0
    """How often training went back after a step that was not finite."""


class Fit:
    """One training. `run` may be called in another process with the same arguments, and goes on there.

    Args:
        trainer: at its first step.
        scratch: where states are kept; None keeps none (for ranks other than the first, and for measurements).
        wish: to stop, looked at after each step.
        on_step: hears how many examples a step saw.
        on_epoch: hears each epoch's metrics.
        on_return: hears which epoch a rollback went back to.
    """

    def __init__(
        self,
        trainer: Trainer,
        scratch: Scratch | None = None,
        wish: StopWish | None = None,
        on_step: Callable[[int], None] = lambda _: None,
        on_epoch: Callable[[int, Metrics], None] = lambda _epoch, _metrics: None,
        on_return: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.trainer, self.history = trainer, History()
        self._scratch = scratch
        self._wish = wish or StopWish()
        self._on_step, self._on_epoch, self._on_return = on_step, on_epoch, on_return
        self._kept: Tensor | None = None
        self._saved = self._agreed = time.monotonic()
        self._steps_since_agreement, self._steps_to_agreement = 0, 1
        self._good = self._state(copied=True) if trainer.params.on_nonfinite == "rollback" else None

    def resume(self, state: State) -> None:
        """Go on from a state that an earlier process saved."""
        content = state.content
        self.history = History(**copy.deepcopy(content["history"]))
        self._kept = state.tensors.get("kept")
        self.trainer.load(dict(state.tensors), Position(**content["position"]))
        if self._good is not None:
            self._good = _good_of(state) or self._state(copied=True)

    def run(self) -> tuple[dict[str, Tensor], History]:
        """Train until the last epoch, or until early stopping; the kept epoch's state dict, and the history.

        Raises:
            SharedError: a step was not finite, under `on_nonfinite: stop` or too often.
            Stopped: the wish was heard; the state is saved.
        """
        while not self._is_finished():
            try:
                self._epoch()
            except NonFiniteError as error:
                self._go_back(error)
        if self._kept is None:
            raise UserError("train: no epoch was finished; expected train.epochs >= 1")
        self._save()  # what the training came to is still to be kept: a kill there costs no step
        return named_weights(self.trainer.model, self._kept), self.history

    def _epoch(self) -> None:
        for examples in self.trainer.steps():
            self._on_step(examples)
            self._look_up()
        epoch = self.trainer.position.epoch
        metrics = self.trainer.end_epoch()
        score = self.trainer.score(metrics)
        if not math.isfinite(score):
            terms = ", ".join(f"{name} {metrics[name]:g}" for name in ("val/recon", "val/kl") if name in metrics)
            raise NonFiniteError(f"the validation score is {score} after epoch {epoch} ({terms})")
        self.history.rows.append(metrics)
        if score > self.history.best_score or self._is_first_warm(epoch):
            self.history.best_epoch, self.history.best_score = epoch, score
        if self.history.best_epoch == epoch or self.trainer.params.keep_epoch == "last":
            self.history.kept_epoch = epoch
            self._kept = self.trainer.average.weights.detach().clone()
        self._on_epoch(epoch, metrics)
        if self._good is not None:
            self._good = self._state(copied=True)
        self._look_up()

    def _is_first_warm(self, epoch: int) -> bool:
        """What was best while beta rose was trained for something else: under a KL that cost less."""
        params = self.trainer.params
        return is_warm(params, epoch) and not is_warm(params, self.history.best_epoch)

    def _is_finished(self) -> bool:
        params, done, best = self.trainer.params, len(self.history.rows), self.history.best_epoch
        patience = params.early_stopping_epochs
        stale = patience is not None and is_warm(params, best) and done - best >= patience
        return done >= params.epochs or stale

    def _look_up(self) -> None:
        """Between two steps: save if it is time to, stop if somebody wishes it."""
        ranks, position = self.trainer.ranks, self.trainer.position
        if ranks.world_size > 1 and not self._is_time_to_agree():
            return
        is_time = time.monotonic() - self._saved >= 60 * self.trainer.params.checkpoint_minutes
        stop = ranks.any(self._wish.signal is not None)
        if stop or ranks.any(is_time and ranks.is_first):
            saved = ranks.any(self._save())  # by the first, for all
            if stop:
                where = f"saved at epoch {position.epoch}, step {position.step}" if saved else "NOT saved"
                raise self._wish.stopped(f"{where}; the same command goes on from there")

    def _is_time_to_agree(self) -> bool:
        """Of several ranks: after an epoch, and after as many steps as take a second by the first one's clock."""
        self._steps_since_agreement += 1
        if self.trainer.position.step and self._steps_since_agreement < self._steps_to_agreement:
            return False
        now = time.monotonic()
        step_seconds = (now - self._agreed) / self._steps_since_agreement
        steps = min(int(_SECONDS_BETWEEN_AGREEMENTS / max(step_seconds, 1e-9)), _MOST_STEPS_BETWEEN_AGREEMENTS)
        self._steps_to_agreement = int(self.trainer.ranks.copy_from_first(torch.tensor(max(steps, 1))).item())
        self._agreed, self._steps_since_agreement = now, 0
        return True

    def _save(self) -> bool:
        if self.trainer.is_held_back:  # at a GPU, seen at the next look: the state before those steps is the good one
            return False
        state = self._state()
        if self._good is not None:
            state = _with_good(state, self._good)
        saved = self._scratch.save(state) if self._scratch is not None else False
        self._saved = time.monotonic()
        return saved

    def _state(self, copied: bool = False) -> State:
        tensors = self.trainer.tensors() | ({"kept": self._kept} if self._kept is not None else {})
        if copied:
            tensors = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        content = {
            "position": dataclasses.asdict(self.trainer.position),
            "history": dataclasses.asdict(self.history),
        }
        return State(tensors, content)

    def _go_back(self, error: NonFiniteError) -> None:
        """Return to the last good state with a lower learning rate, if params allow it and it is not too often.

        That is the end of the last epoch, whose metrics were finite, or the start: a function of steps alone. A state
        that was saved in between, by the clock, may be of weights that are ruined already, if finite.
        """
        returns = self.history.returns + 1
        if self._good is None:
            raise SharedError(
                f"train: {error}{self._keep_batch(error)}; expected finite terms: try a lower "
                "train.learning_rate, or train.on_nonfinite: rollback"
            ) from None
        if returns > MOST_RETURNS:
            raise SharedError(
                f"train: {error}{self._keep_batch(error)}; given up after {MOST_RETURNS} returns with ever lower "
                "learning rates; expected finite terms: look at these examples, or try train.max_gradient_norm: 100"
            ) from None
        scale = self.trainer.position.learning_rate_scale * LEARNING_RATE_AFTER_RETURN
        self.resume(self._good)
        self.history.returns = returns
        position = self.trainer.position
        position.learning_rate_scale = scale
        self._on_return(position.epoch)
        if self.trainer.ranks.is_first:
            print(
                f"warning: train: {error}; back to epoch {position.epoch}, step {position.step}, "
                f"with {scale:g} of the learning rate (return {returns} of {MOST_RETURNS})",
                file=sys.stderr,
            )

    def _keep_batch(self, error: NonFiniteError) -> str:
        """Put the examples of the step, of which a line names a few, into a file; what to say of it."""
        if self._scratch is None or not error.batch:
            return ""
        file = self._scratch.keep_table(BATCH, error.batch)
        return f"; all {len(error.batch)} examples of the step: {file}" if file is not None else ""


def _with_good(state: State, good: State) -> State:
    """A state that knows where to go back to, which whoever resumes it does as well."""
    tensors = {f"{_GOOD}{name}": value for name, value in good.tensors.items()}
    return State({**state.tensors, **tensors}, {**state.content, "good": good.content})


def _good_of(state: State) -> State | None:
    if "good" not in state.content:
        return None
    tensors = {name.removeprefix(_GOOD): value for name, value in state.tensors.items() if name.startswith(_GOOD)}
    return State(tensors, state.content["good"])
