"""Whether the steps of a training are compiled."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from pipeline.compiler import compiled, has_compiler
from pipeline.errors import UserError, one_line
from pipeline.params import TrainParams

P = ParamSpec("P")
R = TypeVar("R")

Step = Callable[..., tuple[Tensor, Tensor]]
"""A batch and more -> the loss and the terms; what the loss wants of the weights is left in a flat buffer."""

_TOLERANCE = 0.05
"""Of the gradient's norm: a compiled step may differ by so much from the plain one. In bf16 the two round at other
places, by some hundredths; in float32 they agree to millionths. A parameter whose gradient is lost may lie within that,
and is looked for by itself."""

_WORTH_IT = 8e12
"""Floating-point operations of a training from which on the compiler's 5 to 25 seconds are won back: on two cores a
training of 784-400-20 took 25 us an image without it and 18 us with it. It is a number and not a measurement, since a
choice that hung on the machine's mood would make two runs of one seed differ."""

_STEPS_WORTH_IT = 30_000
"""Steps of a training from which on a GPU's compiler is taken to be won back. The plain step is captured there in any
case, so that what is won is the way of what lies between its products through memory, whatever their work. That is an
estimate; nothing of it was measured."""


REQUIRED = "params.yaml: train.compile is 'always' but {}; expected auto, never or another torch"


def compiled_step(
    function: Callable[P, R], params: TrainParams, weights: int, examples: int, device: torch.device
) -> Callable[P, R] | None:
    """`function` compiled by torch, or None where that would cost more time than it saves.

    Args:
        function: takes tensors whose shapes never change.
        params: `compile` says auto, always or never.
        weights: of the model.
        examples: of one epoch.
        device: of the tensors.
    """
    pays = _is_worth_it(params, weights, examples, device) and has_compiler(device)
    if params.compile == "never" or params.objective == "dreg" or (params.compile == "auto" and not pays):
        return None
    torch._dynamo.config.trace_autograd_ops = True  # a function with torch.autograd.grad is one graph, not two
    return compiled(function, device, required=REQUIRED if params.compile == "always" else None)


class TriedStep:
    """A faster step that is held to the plain one at its first batches, since a compiler may err and say nothing.

    Under torch 2.11 a compiled step lost the gradient of the decoder, on the CPU and on a GPU: training went on, to a
    model that was several nats worse or had collapsed.

    Args:
        plain: the step as it stands.
        fast: the same, compiled or captured.
        gradients: where either leaves its gradient, float32 [number of weights].
        sizes: how many weights each parameter has there, in order.
        made_by: what to call `fast` where it is found wanting.
        tries: how many batches; on a GPU the first compiled one warms up, the second is captured, and from the third
            on that is what runs.
        required: whether a step that errs or fails is an error; else a line says so and another one goes on.
        instead: that one; by default the plain one.
    """

    def __init__(
        self,
        plain: Step,
        fast: Step,
        gradients: Tensor,
        sizes: Sequence[int],
        *,
        made_by: str = "torch.compile",
        tries: int,
        required: bool,
        instead: Step | None = None,
    ) -> None:
        self._plain, self._fast, self._gradients, self._sizes = plain, fast, gradients, list(sizes)
        self._made_by, self._tries, self._required = made_by, tries, required
        self._instead = instead or plain

    @property
    def is_tried(self) -> bool:
        """Whether it has been held to the plain one."""
        return self._tries == 0

    def __call__(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        """Take the step.

        Raises:
            UserError: the compiled step fails or gives other gradients, and is required.
        """
        return self._fast(*arguments) if self.is_tried else self._try(*arguments)

    def _try(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        result = self._plain(*arguments)
        expected = self._gradients.clone()
        norm = expected.norm().item()
        if not math.isfinite(norm) or norm == 0:  # nothing can be held to that
            return result
        self._gradients.zero_()  # what a step does not write would else be the plain one's
        try:
            fast_result = self._fast(*arguments)
        except (RuntimeError, AssertionError) as failure:  # a capture, or the backward of what was compiled
            reason = f"fails ({one_line(failure, 120)})"
        else:
            error = self._error(expected, norm)
            if error is None:
                self._tries -= 1
                return fast_result
            reason = f"gives other gradients, {error}"
        found = f"{self._made_by} of torch {torch.__version__} {reason}"
        if self._required:
            raise UserError(REQUIRED.format(found))
        print(f"warning: {found}; going on without it", file=sys.stderr)
        self._fast, self._tries = self._instead, 0
        self._gradients.copy_(expected)
        return result

    def _error(self, expected: Tensor, norm: float) -> str | None:
        """In what the gradient of the compiled step differs from the expected one; None where it does not."""
        difference = (self._gradients - expected).norm().item()
        if not difference <= _TOLERANCE * norm:
            return f"by {difference / norm:.0%} of their norm"
        found, wanted = (torch.split(values, self._sizes) for values in (self._gradients, expected))
        lost = sum(bool(b.any()) and not bool(a.any()) for a, b in zip(found, wanted, strict=True))
        return f"none at all for {lost} of {len(wanted)} parameters" if lost else None


def _is_worth_it(params: TrainParams, weights: int, examples: int, device: torch.device) -> bool:
    if device.type == "cuda":
        return params.epochs * -(-examples // params.global_batch_size) >= _STEPS_WORTH_IT
    work = 6 * weights * examples * params.epochs  # forward 2, backward 4 for each weight and example
    return work >= _WORTH_IT
