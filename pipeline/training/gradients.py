"""What the loss of a step wants of the weights: plainly, captured on a GPU, or compiled where that pays."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.params import TrainParams
from pipeline.training.capture import CapturedStep
from pipeline.training.compilation import Step, TriedStep, compiled_step
from pipeline.training.feed import Batch
from pipeline.training.flat import FlatParameters
from pipeline.training.precision import precision_context
from pipeline.training.validation import sum_terms
from pipeline.vae.model import VAE
from pipeline.vae.objectives import objective


class QuickFor(NamedTuple):
    """What a step is made quick for."""

    examples: int
    """Of an epoch."""
    batch_size: int
    """Of this rank."""


class Gradients:
    """Differentiates the objective of a batch.

    Args:
        model: whose weights `flat` holds.
        flat: `flat.gradients` is where a call leaves what it found.
        params: `objective` and what shapes it; `compile`. Of a part of a training, as `part_of` gives them.
        precision: fp32 or bf16, in which the networks run.
        device: of the model.
        quick: examples of an epoch and the size of a batch, for which a step is captured on a GPU, and compiled where
            that saves more than it costs. Batches of other sizes (the last of an epoch) are done plainly; None does
            all of them so.
    """

    def __init__(
        self,
        model: VAE,
        flat: FlatParameters,
        params: TrainParams,
        precision: str,
        device: torch.device,
        quick: QuickFor | None = None,
    ) -> None:
        self._model, self._flat, self._params = model, flat, params
        self._precision, self._device = precision, device
        self._fast_size = 0 if quick is None else quick.batch_size
        self._fast = None if quick is None else self._quickened(quick.examples)

    def __call__(self, batch: Batch, beta: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, [], and elbo, recon and kl summed over the batch, float64 [3]; `beta` is [].

        On a GPU they are those of this call until the next one.

        Raises:
            UserError: the compiled step gives other gradients, under `compile: always`.
        """
        if self._fast is None or len(batch.examples) != self._fast_size:
            return self._plain(batch, beta)
        if not self._fast.is_tried and self._params.beta > 0 and beta == 0:  # no gradient of the KL to be held to
            return self._plain(batch, beta)
        return self._fast(batch, beta)

    def _quickened(self, examples: int) -> TriedStep | None:
        on_cpu = self._device.type == "cpu"
        captured = None if on_cpu else self._tried(CapturedStep(self._plain), "the CUDA graph", tries=2)
        # A GPU captures the objective alone: a graph that writes to memory of others was not tried there.
        function = self._plain if on_cpu else self._objective
        fast = compiled_step(function, self._params, self._flat.weights.numel(), examples, self._device)
        if fast is None:
            return captured

        def gradients(batch: Batch, beta: Tensor) -> tuple[Tensor, Tensor]:
            loss, sums = fast(batch, beta)
            if not on_cpu:
                self._flat.differentiate(loss)
            return loss.detach(), sums

        tries, required = 1 if on_cpu else 3, self._params.compile == "always"
        return self._tried(gradients, "torch.compile", tries, required, instead=captured)

    def _tried(
        self, fast: Step, made_by: str, tries: int, required: bool = False, instead: Step | None = None
    ) -> TriedStep:
        held_to = self._plain, fast, self._flat.gradients, self._flat.sizes
        return TriedStep(*held_to, made_by=made_by, tries=tries, required=required, instead=instead)

    def _plain(self, batch: Batch, beta: Tensor) -> tuple[Tensor, Tensor]:
        loss, sums = self._objective(batch, beta)
        self._flat.differentiate(loss)
        return loss.detach(), sums

    def _objective(self, batch: Batch, beta: Tensor) -> tuple[Tensor, Tensor]:
        params = self._params
        with precision_context(self._precision, self._device):
            loss, bound = objective(
                params.objective,
                self._model,
                batch.x,
                batch.eps,
                beta,
                params.free_bits,
                params.sampled_kl,
                batch.label,
            )
        return loss, sum_terms(bound)
