"""Lower bounds of log p(x): the ELBO and the importance-weighted bound. One value per example, in nats."""

import math
from typing import NamedTuple

from torch import Tensor

from pipeline.vae.model import VAE
from pipeline.vae.posteriors import Draw, Posterior, repeat, repeated


class Bound(NamedTuple):
    """The ELBO and its two terms, `elbo = recon - kl`, each [batch], in nats."""

    elbo: Tensor
    recon: Tensor
    kl: Tensor


def elbo(model: VAE, x: Tensor, eps: Tensor, label: Tensor | None = None) -> Bound:
    """The ELBO (arXiv 1312.6114, equation 10) from one z per example, with the analytic KL where the prior has one.

    `x` is [batch, C, H, W]; `eps` is standard-normal noise [batch, latent_dim]. Zeros for `eps` put z at the
    posterior's mean, which makes `recon` that of a plain auto-encoder. Of a conditional model `label`, int64 [batch],
    are the classes, and the bound is one of log p(x|y).
    """
    q = model.posterior(x, label)
    return elbo_of_draw(model, x, q, q.draw(eps), label)


def elbo_of_draw(model: VAE, x: Tensor, q: Posterior, draw: Draw, label: Tensor | None = None) -> Bound:
    """`elbo` of a draw that was made of the posterior `q` of x."""
    recon = model.likelihood.log_prob(x, model.parameters_of(draw, label))
    kl = q.kl(draw, model.prior.given(label))
    return Bound(recon - kl, recon, kl)


class ImportanceSamples(NamedTuple):
    """log_w = log p(x|z) + log p(z) - log q(z|x) and its first term, each [batch, K], in nats.

    `log_w_discrete` has the log-probability of the stored values for log p(x|z), which may be a density.
    """

    log_w: Tensor
    recon: Tensor
    log_w_discrete: Tensor


def importance_samples(
    model: VAE, x: Tensor, q: Posterior, eps: Tensor, label: Tensor | None = None
) -> ImportanceSamples:
    """Weigh K samples of z per example.

    `x` is [batch, C, H, W], `q` its posterior, `eps` is [batch, K, latent_dim]; `label`, int64 [batch], as in `elbo`.
    """
    batch, samples, _ = eps.shape
    x, q, label = repeat(x, samples), q.repeat(samples), repeated(label, samples)
    draw = q.draw(eps.flatten(0, 1))
    parameters = model.parameters_of(draw, label)  # (batch * K, ...)
    recon = model.likelihood.log_prob(x, parameters)
    log_w = recon + model.prior.given(label).log_prob(draw.z) - q.log_prob(draw)
    log_w_discrete = log_w
    if model.likelihood.is_density:
        log_w_discrete = log_w - recon + model.likelihood.discrete_log_prob(x, parameters)
    return ImportanceSamples(*(value.view(batch, samples) for value in (log_w, recon, log_w_discrete)))


def iw_bound(log_w: Tensor) -> Tensor:
    """log (1/K) sum_k w_k (Burda et al., arXiv 1509.00519, equation 8): [batch, K] -> [batch], in nats.

    Its expectation rises with K from the ELBO towards log p(x).
    """
    return log_w.logsumexp(1) - math.log(log_w.shape[1])


def iw_bound_of_groups(log_w: Tensor, size: int) -> Tensor:
    """The importance-weighted bound with `size` samples, averaged over disjoint groups of K: [batch, K] -> [batch].

    Every group is an independent draw of that bound, so the mean is an unbiased estimate of its expectation, from all
    samples but K mod `size`.
    """
    batch, samples = log_w.shape
    groups = log_w[:, : samples // size * size].reshape(-1, size)
    return iw_bound(groups).view(batch, -1).mean(1)
