"""What is lost because one network answers for every image: the amortisation gap.

Cremer et al. 2018, arXiv 1801.03558: the ELBO of the best q of the family for an image, less that of the encoder's. It
is looked for by gradient steps from the encoder's answer, among the q whose Gaussians lie elsewhere: all of the family
where q is a Gaussian, else the same flow of other Gaussians, or a ladder whose groups are moved. What is found is on
average at most the gap.
"""

import torch
from torch import Tensor

from pipeline.dataset.batches import images_at_once, index_batches
from pipeline.dataset.noise import standard_normal, stream_key
from pipeline.metrics.likelihood import Encoded
from pipeline.metrics.streams import Stream
from pipeline.optimizers import FlatAdam
from pipeline.vae.bounds import importance_samples
from pipeline.vae.model import VAE
from pipeline.vae.posteriors import Posterior

_STEPS = 100
_LEARNING_RATE = 0.1  # of Adam; falls to 0 in a straight line
_SAMPLES_OF_A_STEP = 4
_PIECES, _SAMPLES_OF_A_PIECE = 16, 16  # both ELBOs are measured with 256 samples, the same for both
_MOST_DECODED = 2000  # at once


@torch.no_grad()
def amortisation_gap(model: VAE, given: Encoded, examples: Tensor, seed: int) -> Tensor:
    """How many nats of ELBO an own q would win for some images of a split, [len(examples)]."""
    together = max(1, images_at_once(given.pixels.shape[1:], _MOST_DECODED) // _SAMPLES_OF_A_PIECE)
    return torch.cat([_gap(model, given, some, seed) for some in index_batches(examples, together)])


def _gap(model: VAE, given: Encoded, examples: Tensor, seed: int) -> Tensor:
    x, label, like = given.x(examples), given.label(examples), given.mu[examples]
    amortised = model.posterior(x, label)
    own = _search(model, x, amortised, examples, seed, label)
    gap = torch.zeros_like(like[:, 0])
    for piece in range(_PIECES):
        eps = _noise(stream_key(seed, Stream.AMORTISATION_MEASURE, piece), examples, _SAMPLES_OF_A_PIECE, like)
        gap += (_elbo(model, x, own, eps, label) - _elbo(model, x, amortised, eps, label)) / _PIECES
    return gap


def _search(model: VAE, x: Tensor, start: Posterior, examples: Tensor, seed: int, label: Tensor | None) -> Posterior:
    """The q at the end of the steps; means move in units of standard deviations, so that one step size suits."""
    moves, gradients = start.mu.new_zeros(2, *start.mu.shape), start.mu.new_zeros(2, *start.mu.shape)
    adam = FlatAdam(moves, gradients)
    for step in range(_STEPS):
        eps = _noise(stream_key(seed, Stream.AMORTISATION_SEARCH, step), examples, _SAMPLES_OF_A_STEP, start.mu)
        with torch.enable_grad():
            shift, stretch = (move.detach().requires_grad_() for move in moves)
            loss = -_elbo(model, x, start.moved(shift, stretch), eps, label).sum()
        torch.stack(torch.autograd.grad(loss, [shift, stretch]), out=gradients)
        adam.step(_LEARNING_RATE * (1 - step / _STEPS))
    return start.moved(*moves)


def _elbo(model: VAE, x: Tensor, q: Posterior, eps: Tensor, label: Tensor | None) -> Tensor:
    """The ELBO of each image with q in the encoder's place; eps is [batch, samples, latent_dim] -> [batch], in nats."""
    samples, prior = importance_samples(model, x, q, eps, label), model.prior.given(label)
    if q.has_closed_kl(prior):
        return samples.recon.mean(1) - q.kl(q.draw(eps[:, 0]), prior)
    return samples.log_w.mean(1)


def _noise(key: int, examples: Tensor, samples: int, like: Tensor) -> Tensor:
    """Standard-normal noise [batch, samples, latent_dim] in pairs of opposite signs, whose first order cancels."""
    half = standard_normal(key, examples, samples // 2 * like.shape[1]).to(like)
    half = half.view(len(examples), samples // 2, like.shape[1])
    return torch.cat([half, -half], dim=1)
