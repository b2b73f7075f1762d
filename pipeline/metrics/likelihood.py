"""Estimates of the log-likelihood of a split, one value per image, in nats."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.compiler import compiled, has_compiler
from pipeline.dataset.batches import images_at_once, index_batches, model_input
from pipeline.dataset.noise import generator_of
from pipeline.errors import UserError
from pipeline.metrics.streams import Stream
from pipeline.vae.bounds import ImportanceSamples, importance_samples, iw_bound, iw_bound_of_groups
from pipeline.vae.model import VAE

_WORTH_COMPILING = 1e10
"""Values weighed, images * K * values of an image, from which on compiling pays: on two cores it took 1 to 11 s, and
saved 3 ns of each under a dense network with Bernoulli pixels, 130 of a logistic mixture, 1,100 of residual ones."""

_MORE_ON_A_GPU = 16
"""Times as many log-weights are held at once on a GPU, which has no cache that they are to fit into, and which waits
for the host where there is little to do; halved as often as they do not fit into its memory."""

Weigh = Callable[..., ImportanceSamples]
"""`importance_samples`, or what does the same."""


class Encoded(NamedTuple):
    """mu and logvar of each image of a split, [n, latent_dim], and what the model saw of it: uint8 [n, C, H, W]."""

    mu: Tensor
    logvar: Tensor
    pixels: Tensor
    binarize: str
    seed: int
    labels: Tensor | None = None
    """Of a conditional model: the class of each image, int64 [n], on the device of mu."""

    def label(self, examples: Tensor) -> Tensor | None:
        """The classes of some images, int64 [batch]; None where the model sees none."""
        return None if self.labels is None else self.labels[examples.to(self.labels.device)]

    def x(self, examples: Tensor) -> Tensor:
        """The model's input of some images, [batch, C, H, W]: made when it is asked for, so that memory stays flat."""
        device = self.mu.device
        return model_input(self.pixels[examples].to(device), examples.to(device), self.binarize, self.seed)


class Estimates(NamedTuple):
    """Per image [n], in nats: the ELBO (its `recon`, and its `kl` where it has no closed form, are means
    over the K samples) and the importance bound.

    `discrete_bound` bounds the log-probability of the stored values; it is another number than `iw_bound` where the
    likelihood is a density. `curve`, [n, sizes], is the bound with each number of samples of `curve_sizes`.
    """

    elbo: Tensor
    recon: Tensor
    kl: Tensor
    iw_bound: Tensor
    discrete_bound: Tensor
    curve: Tensor


@torch.no_grad()
def encode_split(model: VAE, images: Tensor, binarize: str, seed: int, labels: Tensor | None = None) -> Encoded:
    """Encode uint8 images [n, C, H, W], for a conditional model of the classes `labels`, int64 [n].

    Binarisation is drawn once, from the seed and each image's index.
    """
    nothing = torch.empty(len(images), model.config.latent_dim, device=next(model.parameters()).device)
    labels = None if labels is None else labels.to(nothing.device)
    given = Encoded(nothing, nothing.clone(), images, binarize, seed, labels)
    for examples in index_batches(torch.arange(len(images)), images_at_once(images.shape[1:])):
        q = model.posterior(given.x(examples), given.label(examples))
        given.mu[examples], given.logvar[examples] = q.mu, q.logvar
    return given


@torch.no_grad()
def estimate(
    model: VAE,
    given: Encoded,
    samples: int,
    seed: int,
    batch_log_weights: int,
    on_images: Callable[[int], None] = lambda _: None,
    weigh: Weigh = importance_samples,
) -> Estimates:
    """The ELBO and the importance-weighted bound with exactly K = `samples` samples of z per image.

    The noise of an image depends on (seed, its index) alone, that of a GPU being another than a CPU's.
    `batch_log_weights` bounds how many samples of z are decoded at once, fewer of large images, 16 times as many on a
    GPU or what its memory holds of them, and changes the result by rounding only; so does `weigh`, of
    `fastest_weigh`. `on_images` hears how many images are done.

    Raises:
        UserError: the device's memory does not hold a single sample.
    """
    # Results are written in place: small tensors kept from every round would pin the heap between the large ones.
    recon, kl, bound, discrete = (torch.empty_like(given.mu[:, 0]) for _ in range(4))
    sizes = curve_sizes(samples)
    curve = torch.empty(len(recon), len(sizes), dtype=recon.dtype, device=recon.device)
    at_once = _at_once(given, batch_log_weights)
    done = 0
    while done < len(given.mu):
        examples = torch.arange(done, min(done + max(1, at_once // samples), len(given.mu)))
        try:
            x, label = given.x(examples), given.label(examples)
            q, prior = model.posterior(x, label), model.prior.given(label)
            eps = torch.stack([_noise(seed, index, samples, q.mu) for index in examples.tolist()])
            parts = [weigh(model, x, q, piece, label) for piece in torch.split(eps, at_once, dim=1)]
            log_w, log_p, log_w_discrete = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))  # (batch, K)
            recon[examples], bound[examples] = log_p.mean(1), iw_bound(log_w)
            kl[examples] = q.kl(q.draw(eps[:, 0]), prior) if q.has_closed_kl(prior) else (log_p - log_w).mean(1)
            discrete[examples] = iw_bound(log_w_discrete)
            curve[examples] = torch.stack([iw_bound_of_groups(log_w, size) for size in sizes], dim=1)
        except torch.OutOfMemoryError:
            at_once = _half(at_once, batch_log_weights)
            continue  # with these images once more: their noise is the same
        done += len(examples)
        on_images(len(examples))
    return Estimates(recon - kl, recon, kl, bound, discrete, curve)


def fastest_weigh(given: Encoded, samples: int) -> Weigh:
    """How to weigh K = `samples` samples of z for each of these images: compiled where there is enough to do.

    A GPU goes on as it is, since nothing was measured there.
    """
    device, values = given.mu.device, given.pixels.numel() * samples
    if device.type != "cpu" or values < _WORTH_COMPILING or not has_compiler(device):
        return importance_samples
    return compiled(importance_samples, device)


def curve_sizes(samples: int) -> list[int]:
    """Numbers of samples at which the bound is told, so that a reader sees it converge: powers of ten, K/2 and K."""
    powers = [10**power for power in range(len(str(samples)))]
    return sorted({*powers, max(1, samples // 2), samples})


@torch.no_grad()
def recon_at_mean(model: VAE, given: Encoded) -> Tensor:
    """log p(x|z) with z at the posterior's mean, [n], in nats: what a plain auto-encoder maximises."""
    recon = torch.empty_like(given.mu[:, 0])
    for examples in index_batches(torch.arange(len(recon)), images_at_once(given.pixels.shape[1:])):
        parameters = model.decode(given.mu[examples], given.label(examples))
        recon[examples] = model.likelihood.log_prob(given.x(examples), parameters)
    return recon


def _at_once(given: Encoded, batch_log_weights: int) -> int:
    if given.mu.device.type != "cpu":
        return batch_log_weights * _MORE_ON_A_GPU
    return images_at_once(given.pixels.shape[1:], batch_log_weights)


def _half(at_once: int, batch_log_weights: int) -> int:
    if at_once == 1:
        raise UserError(
            f"params.yaml: evaluate.batch_log_weights is {batch_log_weights}, and the device's memory does not hold "
            "even 1 at once; expected a device with more free memory"
        ) from None
    return at_once // 2


def _noise(seed: int, index: int, samples: int, like: Tensor) -> Tensor:
    """Standard-normal noise [K, latent_dim] of one image, drawn where it is used: a host would be slower than a GPU."""
    generator = generator_of(seed, Stream.POSTERIOR, index, device=like.device)
    return torch.randn(samples, like.shape[1], generator=generator, dtype=like.dtype, device=like.device)
