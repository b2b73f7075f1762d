"""The aggregate posterior q(z), the mean of q(z|x) over the images: what z says of x, and how far q(z) is from p(z).

The KL term of the ELBO is I(x; z) + KL(q(z) || p(z)) (Hoffman and Johnson 2016, "ELBO surgery"). Neither part can be
computed, so both are bounded, from one draw of z for each of N images:

- `mutual_information` takes the mean of the N posteriors for q(z). Its expectation is at most I(x; z) (Poole et al.
  2019, arXiv 1905.06922, equation 10) and at most log N, however much z says: near log N it is no measurement. What it
  leaves of the KL is at least KL(q(z) || p(z)), on average.
- `fitted_marginal_kl` takes for q(z) a Gaussian, or a mixture of them, that was fitted to other images' draws. On
  average it is at most KL(q(z) || p(z)), whatever the fit, and knows no log N: a better fit sees more of it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pipeline.dataset.batches import images_at_once, index_batches
from pipeline.dataset.noise import standard_normal, stream_key
from pipeline.metrics.likelihood import Encoded
from pipeline.metrics.streams import Stream
from pipeline.vae.model import VAE
from pipeline.vae.priors.mixtures import Mixture, mixture_log_prob

_CODES_TOGETHER = 1000  # whose density under every posterior is asked for at once
_COMPONENTS = 10  # of the fitted mixture, at most, each with a covariance of its own
_LEAST_VARIANCE = 1e-4  # added to those of a fit


class PosteriorDraws(NamedTuple):
    """One z for each image, [n, latent_dim], with log q(z|x) and log p(z), each [n], in nats."""

    z: Tensor
    log_q: Tensor
    log_p: Tensor


@torch.no_grad()
def draw_codes(model: VAE, given: Encoded, seed: int) -> PosteriorDraws:
    """Draw z from q(z|x) of each image of a split; the noise of an image depends on (seed, its index) alone."""
    parts = []
    for examples in index_batches(torch.arange(len(given.mu)), images_at_once(given.pixels.shape[1:])):
        label = given.label(examples)
        q, prior = model.posterior(given.x(examples), label), model.prior.given(label)
        eps = standard_normal(stream_key(seed, Stream.CODES), examples, q.mu.shape[1]).to(q.mu)
        draw = q.draw(eps)
        parts.append(PosteriorDraws(draw.z, q.log_prob(draw), prior.log_prob(draw.z)))
    return PosteriorDraws(*(torch.cat(column) for column in zip(*parts, strict=True)))


def mutual_information(codes: PosteriorDraws, mu: Tensor, logvar: Tensor) -> Tensor:
    """log q(z|x) - log (1/N) sum_j q(z|x_j) of each code, [n], in nats: its mean is at most I(x; z), and at most log N.

    `mu` and `logvar` are those of the codes' own posteriors, diagonal Gaussians, each [n, latent_dim]. The result is
    float64: in float32 log N itself may be rounded up.
    """
    most = math.log(len(codes.z))
    q = Mixture(torch.full_like(codes.log_q, -most), mu, logvar)
    log_aggregate = torch.cat([mixture_log_prob(z, q) for z in torch.split(codes.z, _CODES_TOGETHER)])
    return (codes.log_q.double() - log_aggregate).clamp_max(most)  # only rounding goes beyond: its own q is one of N


def fitted_marginal_kl(fitted_to: PosteriorDraws, measured_on: PosteriorDraws, seed: int) -> Tensor:
    """log q'(z) - log p(z) of each code, [n], in nats, where q' is a Gaussian or a mixture, fitted to other codes.

    Over codes of images that the fit has not seen, the mean is at most KL(q(z) || p(z)).
    """
    fitted = _fit(fitted_to.z.double().cpu().numpy(), seed)
    log_q = torch.from_numpy(fitted.score_samples(measured_on.z.double().cpu().numpy()))
    return log_q - measured_on.log_p.double().cpu()


def fitted_marginal_kl_of_classes(
    fitted_to: PosteriorDraws, fitted_labels: Tensor, measured_on: PosteriorDraws, labels: Tensor, seed: int
) -> Tensor:
    """`fitted_marginal_kl` with a fit for each class of a conditional model: [m], in nats.

    Its mean is at most that of KL(q(z|y) || p(z|y)) over the codes' classes; a code whose class has not two codes to
    fit to is left out. The labels are int64 [n], of the codes beside them.
    """
    parts = []
    for label in sorted(set(labels.tolist())):
        known, asked = (
            PosteriorDraws(*(value[of == label] for value in codes))
            for codes, of in ((fitted_to, fitted_labels), (measured_on, labels))
        )
        if len(known.z) > 1:
            parts.append(fitted_marginal_kl(known, asked, seed))
    return torch.cat(parts) if parts else measured_on.log_p.new_empty(0)


def _fit(z: NDArray[np.float64], seed: int) -> GaussianMixture:
    """One diagonal Gaussian, or a mixture of full ones, by two thirds of the codes: the better one of the last third.

    A covariance of d dimensions has d^2 / 2 numbers, of which a few thousand codes say little where d is large.
    """
    others, known = np.split(np.random.default_rng(seed).permutation(z), [len(z) // 3])  # images may lie in an order
    plain = GaussianMixture(1, covariance_type="diag", reg_covar=_LEAST_VARIANCE).fit(known)
    components = min(_COMPONENTS, len(known) // (2 * z.shape[1]))
    if not components or not len(others):
        return plain
    mixture = GaussianMixture(
        components, covariance_type="full", reg_covar=_LEAST_VARIANCE, max_iter=50, random_state=seed
    ).fit(known)
    return max(plain, mixture, key=lambda fit: float(fit.score(others)))
