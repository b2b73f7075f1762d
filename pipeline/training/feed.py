"""What a rank sees of each step: its share of the batch, as the model wants it, with its noise.

The noise of example i in epoch t is a function of (seed, t, i): who computes it, and in what company, changes nothing.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dataset.batches import model_input
from pipeline.dataset.noise import standard_normal, stream_key
from pipeline.dataset.shuffle import shuffled
from pipeline.params import TrainParams
from pipeline.training.ranks import Ranks
from pipeline.vae.objectives import noise_shape

_TRAIN_NOISE, _VAL_NOISE = 1, 2  # streams of the seed
_BINARIZATION, _POSTERIOR = 0, 1  # and of each of those
_BLOCK_VALUES = {"cpu": 2**20, "cuda": 2**24}
"""Pixels, or where those are more, values of noise, that are made ready at once: enough that no step waits for many
small operations, which on a GPU cost the same however large they are."""

_ORDERED = 2**16
"""Examples whose order is computed at once: fewer cost more each, 1,280 of them a third of what these do."""

_KEPT_VALUES = 2**24  # pixels of a validation split that is small enough to stay ready, 64 MiB of float32


class Batch(NamedTuple):
    """One rank's share of a step."""

    examples: Tensor
    """int64 [m], indices into the split; m may be 0 in the last step of an epoch."""
    x: Tensor
    """float32 [m, C, H, W] in [0, 1]."""
    eps: Tensor
    """Standard-normal noise of the shape that the objective takes, float32 [m, ...]; zeros for an auto-encoder."""
    label: Tensor | None = None
    """Of a conditional model: the classes, int64 [m]."""


class SplitLabels(NamedTuple):
    """The class of each image of the splits, int64 [n]; None where the model sees none."""

    train: Tensor | None = None
    val: Tensor | None = None


class Feed:
    """The batches of a training and a validation split, each uint8 [n, C, H, W]."""

    def __init__(
        self,
        train: Tensor,
        val: Tensor,
        params: TrainParams,
        latent_dim: int,
        device: torch.device,
        ranks: Ranks,
        labels: SplitLabels = SplitLabels(),  # noqa: B008  # immutable
    ) -> None:
        self._params, self._latent_dim, self._device, self._ranks = params, latent_dim, device, ranks
        self.train, self.val = (_resident(images, device) for images in (train, val))
        self.labels = labels
        values = max(train[0].numel(), math.prod(self._noise_shape(params.objective)))
        self._block = max(1, _BLOCK_VALUES[device.type] // values)  # images
        self.steps_per_epoch = -(-len(train) // params.global_batch_size)
        self._kept: list[Batch] | None = None

    def global_batch(self, step: int) -> int:
        """How many examples all ranks together see in step 0, 1, ... of an epoch."""
        size = self._params.global_batch_size
        return min(size, len(self.train) - step * size)

    def examples(self, epoch: int, step: int) -> Tensor:
        """The examples of one step, those of every rank; int64 [global batch]."""
        start = step * self._params.global_batch_size
        positions = torch.arange(start, start + self.global_batch(step))
        return shuffled(positions, len(self.train), self._params.seed, epoch)

    def steps(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This rank's batches from step `first` of an epoch to its end."""
        shares = self._shares(epoch, first)
        while together := list(itertools.islice(shares, self._steps_of(self._block))):
            examples, sizes = torch.cat(together), [len(share) for share in together]
            x, eps = self._ready(self.train, examples, _TRAIN_NOISE, epoch)
            label = self._label(self.labels.train, examples)
            labels = [None] * len(sizes) if label is None else torch.split(label, sizes)
            yield from map(Batch, together, *(torch.split(values, sizes) for values in (x, eps)), labels)

    def batches_of(self, epoch: int, examples: Tensor) -> Iterator[Batch]:
        """The given examples as an epoch shows them, a few at a time."""
        for some in torch.split(examples, self._block):
            made = self._ready(self.train, some, _TRAIN_NOISE, epoch)
            yield Batch(some, *made, self._label(self.labels.train, some))

    def validation(self) -> Iterable[Batch]:
        """This rank's share of the validation split, under the same noise every time; made once if it is small."""
        if self.val.numel() > _KEPT_VALUES:
            return self._validation()
        if self._kept is None:
            self._kept = list(self._validation())
        return self._kept

    def _shares(self, epoch: int, first: int) -> Iterator[Tensor]:
        """The examples of this rank's batches from step `first` of an epoch to its end."""
        size, many = self._params.global_batch_size, self._steps_of(_ORDERED)
        for start in range(first, self.steps_per_epoch, many):
            steps = range(start, min(start + many, self.steps_per_epoch))
            shares = [self._ranks.share(step * size, self.global_batch(step)) for step in steps]
            examples = shuffled(torch.cat(shares), len(self.train), self._params.seed, epoch)
            yield from torch.split(examples, [len(share) for share in shares])

    def _steps_of(self, images: int) -> int:
        """How many steps show a rank about so many images."""
        return max(1, images // -(-self._params.global_batch_size // self._ranks.world_size))

    def _validation(self) -> Iterator[Batch]:
        images = self._block * self._ranks.world_size
        size = max(images, self._params.global_batch_size)  # without gradients there is room for more at once
        for start in range(0, len(self.val), size):
            examples = self._ranks.share(start, min(size, len(self.val) - start))
            if not len(examples):  # the other ranks have what the last batch holds
                return
            made = self._ready(self.val, examples, _VAL_NOISE)
            yield Batch(examples, *made, self._label(self.labels.val, examples))

    def _label(self, labels: Tensor | None, examples: Tensor) -> Tensor | None:
        """The classes of these examples, on the device."""
        return None if labels is None else self._sent(labels.index_select(0, examples))

    def _sent(self, values: Tensor) -> Tensor:
        """Values on the device; a GPU fetches them by itself, and nothing waits for it."""
        if self._device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()
        return values.to(self._device, non_blocking=True)

    def _ready(self, images: Tensor, examples: Tensor, split: int, *epoch: int) -> tuple[Tensor, Tensor]:
        """x and eps of these examples; without an epoch, the noise is that of a measurement."""
        key = stream_key(self._params.seed, split)
        sent = self._sent(examples)
        pixels = self._sent(images.index_select(0, sent if images.is_cuda else examples))
        x = model_input(pixels, sent, self._params.binarize, stream_key(key, _BINARIZATION), *epoch)
        if self._params.objective == "autoencoder":
            return x, torch.zeros(len(sent), self._latent_dim, device=self._device)
        # Validation reports the ELBO, of one sample.
        name = self._params.objective if epoch else "elbo"
        shape = self._noise_shape(name)
        eps = standard_normal(stream_key(key, _POSTERIOR, *epoch), sent, math.prod(shape))
        return x, eps.view(-1, *shape)

    def _noise_shape(self, objective: str) -> tuple[int, ...]:
        return noise_shape(objective, self._params.importance_samples, self._latent_dim, self.train[0].numel())


def _resident(images: Tensor, device: torch.device) -> Tensor:
    """The images on the GPU where they take less than half of its free memory; else where they are."""
    if device.type != "cuda":
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.numel() < free // 2 else images
