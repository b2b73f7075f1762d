"""What the loss of a step wants of the weights: plainly, captured on a GPU, or compiled where that pays."""

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


class Gradients:
    """Differentiates the objective of a batch.

    Args:
        model: whose weights `flat` holds.
        flat: `flat.gradients` is where a call leaves what it found.
        params: `objective` and what shapes it; `compile`.
        precision: fp32 or bf16, in which the networks run.
        device: of the model.
    """

    def __init__(
        self, model: VAE, flat: FlatParameters, params: TrainParams, precision: str, device: torch.device
    ) -> None:
        self._model, self._flat, self._params = model, flat, params
        self._precision, self._device = precision, device
        self._fast: TriedStep | None = None
        self._fast_size = 0

    def quicken(self, examples: int, batch_size: int) -> None:
        """Capture what is done with batches of this size, on a GPU, and compile it where that saves more than it costs.

        `examples` are those of one epoch. Batches of other sizes (the last of an epoch) are done plainly.
        """
        self._fast_size = batch_size
        if self._device.type == "cuda":
            self._fast = self._tried(CapturedStep(self._plain), "the CUDA graph", tries=2)
        # A GPU captures the objective alone: a graph that writes to memory of others was not tried there.
        function = self._plain if self._device.type == "cpu" else self._objective
        fast = compiled_step(function, self._params, self._flat.weights.numel(), examples, self._device)
        if fast is None:
            return

        def gradients(batch: Batch, beta: Tensor) -> tuple[Tensor, Tensor]:
            loss, sums = fast(batch, beta)
            if self._device.type != "cpu":
                self._flat.differentiate(loss)
            return loss.detach(), sums

        tries, required = 1 if self._device.type == "cpu" else 3, self._params.compile == "always"
        self._fast = self._tried(gradients, "torch.compile", tries, required, instead=self._fast)

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
