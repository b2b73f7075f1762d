"""What training minimises. These shape the weights alone; what is reported is always the bound itself."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.vae.bounds import Bound, elbo, elbo_of_draw, iw_bound
from pipeline.vae.densities import gaussian_elements
from pipeline.vae.model import VAE
from pipeline.vae.posteriors import DiagonalGaussian, Draw, Posterior, repeat, repeated

OBJECTIVES = ("elbo", "stl", "iwae", "dreg", "tc", "wake_sleep", "autoencoder")

MANY_SAMPLES = ("iwae", "dreg")
"""The objectives that take `train.importance_samples` samples of z per example; the others take one."""


class Objective(NamedTuple):
    """A loss, [], in nats, and the bound of each example that is reported beside it."""

    loss: Tensor
    bound: Bound


def objective(
    name: str,
    model: VAE,
    x: Tensor,
    eps: Tensor,
    beta: float | Tensor,
    free_bits: float = 0.0,
    sampled_kl: bool = False,
    label: Tensor | None = None,
) -> Objective:
    """The loss of a batch by its name in params.yaml.

    Args:
        name: elbo, stl, iwae, dreg, tc, wake_sleep or autoencoder.
        model: what is trained.
        x: [batch, C, H, W].
        eps: standard-normal noise, [batch, *noise_shape(...)], zeros for an auto-encoder.
        beta: weight of log q(z|x) - log p(z), or of its expectation, the KL; of tc, of the total correlation.
        free_bits: of elbo: nats per latent dimension below which the KL costs no less.
        sampled_kl: of elbo: log q - log p of the z that recon is taken at, also where the KL has a closed form.
        label: of a conditional model: the classes, int64 [batch].

    Raises:
        UserError: there is no such objective.
    """
    if name not in OBJECTIVES:
        raise UserError(f"train.objective is {name!r}; expected one of {', '.join(OBJECTIVES)}")
    if name in MANY_SAMPLES:
        return importance_objective(model, x, eps, beta, name == "dreg", label)
    if name == "wake_sleep":
        return wake_sleep_objective(model, x, eps, label)
    if name == "stl" or (name == "elbo" and sampled_kl):
        return sampled_objective(model, x, eps, beta, name == "elbo", label)
    if name == "tc":
        return total_correlation_objective(model, x, eps, beta, label)
    if name == "elbo" and free_bits > 0:
        return free_bits_objective(model, x, eps, beta, free_bits, label)
    bound = elbo(model, x, eps, label)
    if name == "autoencoder":
        return Objective(autoencoder_loss(bound), bound)
    return Objective(beta_vae_loss(bound, beta), bound)


def beta_vae_loss(bound: Bound, beta: float | Tensor) -> Tensor:
    """-(recon - beta * kl), the mean over the batch, in nats (Higgins et al. 2017; beta = 1 is minus the ELBO)."""
    return (beta * bound.kl - bound.recon).mean()


def autoencoder_loss(bound: Bound) -> Tensor:
    """-recon, the mean over the batch, in nats: with z at the posterior's mean this is a plain auto-encoder."""
    return -bound.recon.mean()


def free_bits_objective(
    model: VAE, x: Tensor, eps: Tensor, beta: float | Tensor, free_bits: float, label: Tensor | None = None
) -> Objective:
    """`beta_vae_loss` in which each dimension's KL, a mean over the batch, counts at least `free_bits` nats.

    Kingma et al. 2016, arXiv 1606.04934, equation 15, with a group for each dimension: one that carries less than that
    is not pushed to carry nothing. Of a ladder the KL of a dimension is that under the draw of the groups above it.
    """
    q, prior = model.posterior(x, label), model.prior.given(label)
    draw = q.draw(eps)
    bound = elbo_of_draw(model, x, q, draw, label)
    per_dimension = q.kl_per_dimension(draw, prior).mean(0)  # (latent_dim,)
    return Objective(beta * per_dimension.clamp_min(free_bits).sum() - bound.recon.mean(), bound)


def sampled_objective(
    model: VAE, x: Tensor, eps: Tensor, beta: float | Tensor, with_score: bool, label: Tensor | None = None
) -> Objective:
    """Minus the ELBO by one sample in both terms (arXiv 1312.6114, equation 6).

    Without the score of q ("sticking the landing", Roeder et al., arXiv 1703.09194) log q(z|x) is differentiated by z
    alone; what is left out has mean 0, and near the exact posterior is all the noise.
    """
    q = model.posterior(x, label)
    draw = q.draw(eps)
    recon = model.likelihood.log_prob(x, model.parameters_of(draw, label))
    ratio = (q if with_score else _without_score(q)).log_prob(draw) - model.prior.given(label).log_prob(draw.z)
    kl = q.kl(draw, model.prior.given(label)).detach()
    return Objective((beta * ratio - recon).mean(), Bound(recon - kl, recon, kl))


def total_correlation_objective(
    model: VAE, x: Tensor, eps: Tensor, beta: float | Tensor, label: Tensor | None = None
) -> Objective:
    """Minus the ELBO plus (beta - 1) times the total correlation of q(z): beta-TCVAE (Chen et al., arXiv 1802.04942).

    The KL is mutual information, total correlation and the KL of each dimension; beta weighs the second alone
    (equation 4 with alpha = gamma = 1).
    """
    q = model.posterior(x, label)
    draw = q.draw(eps)
    recon = model.likelihood.log_prob(x, model.parameters_of(draw, label))
    bound = Bound(recon - (kl := q.kl(draw, model.prior.given(label))), recon, kl)
    correlation = total_correlation(draw.z, q.mu, q.logvar).mean()
    return Objective((beta - 1) * correlation - bound.elbo.mean(), bound)


def total_correlation(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log q(z) - sum_d log q(z_d) at each z, [batch], in nats; q(z) is the mean of the batch's posteriors.

    All are [batch, latent_dim], z drawn from N(mu, exp(logvar)). With the whole data in place of the batch, its mean
    is the total correlation; but for a constant this is the minibatch-weighted sampling of arXiv 1802.04942, C.1.
    """
    pairs = gaussian_elements(z[:, None], mu, logvar)  # (batch, batch, latent_dim): log q(z_i | x_j)
    count = math.log(len(mu))
    joint = pairs.sum(2).logsumexp(1) - count
    marginals = (pairs.logsumexp(1) - count).sum(1)
    return joint - marginals


def importance_objective(
    model: VAE,
    x: Tensor,
    eps: Tensor,
    beta: float | Tensor,
    doubly_reparameterized: bool,
    label: Tensor | None = None,
) -> Objective:
    """Minus the importance-weighted bound of k samples (Burda et al., arXiv 1509.00519), `eps` [batch, k, latent_dim].

    Doubly reparameterised (DReG: Tucker et al., arXiv 1810.04152, equation 8) its gradient has the same mean: decoder
    and prior get that of the bound; the encoder gets sum_i w_i^2 dlog w_i/dz_i dz_i/dphi with normalised weights w,
    whose signal does not drown in noise as k grows. beta below 1, of a warm-up, tempers the weights: of
    log w = recon - beta ratio, the score of q comes with -beta w_i, and reparameterised (equation 7 there) it gives
    -beta w_i (1 - w_i) dlog w_i/dz_i, so that with the path's own w_i the factor is w_i (1 - beta + beta w_i).
    """
    batch, samples, _ = eps.shape
    q, label_of_draw = model.posterior(x, label).repeat(samples), repeated(label, samples)
    draw = q.draw(eps.flatten(0, 1))  # z is (batch * k, latent_dim)
    recon = model.likelihood.log_prob(repeat(x, samples), model.parameters_of(draw, label_of_draw)).view(batch, samples)
    log_q = (_without_score(q) if doubly_reparameterized else q).log_prob(draw)
    ratio = (log_q - model.prior.given(label_of_draw).log_prob(draw.z)).view(batch, samples)
    log_w = recon - beta * ratio
    mean_recon, mean_ratio = recon.detach().mean(1), ratio.detach().mean(1)
    bound = Bound(mean_recon - mean_ratio, mean_recon, mean_ratio)
    if not doubly_reparameterized:
        return Objective(-iw_bound(log_w).mean(), bound)
    weights = log_w.detach().softmax(1)
    if draw.z.requires_grad:
        factors = (1 - beta + beta * weights).view(-1, 1)
        draw.z.register_hook(lambda gradient: gradient * factors)  # type: ignore[no-untyped-call]
    # The value is the bound's, the gradient that of the weighted sum.
    surrogate = (weights * log_w).sum(1)
    loss = -(surrogate + (iw_bound(log_w) - surrogate).detach()).mean()
    return Objective(loss, bound)


def wake_sleep_objective(model: VAE, x: Tensor, eps: Tensor, label: Tensor | None = None) -> Objective:
    """Minus log p(x, z), z ~ q(z|x) (wake), minus log q(z|x), (x, z) ~ p (sleep): means over the batch, in nats.

    The wake-sleep algorithm (Hinton, Dayan, Frey and Neal 1995) with continuous z. The wake phase teaches decoder and
    prior, with the gradient that the ELBO gives them; the sleep phase teaches the encoder, on images that the model
    dreams. The sum is not the bound of anything: each phase has the divergence of q and p(z|x) the other way round.

    Args:
        model: with a standard prior, a diagonal posterior, and a likelihood that has `sample_from`.
        x: [batch, C, H, W].
        eps: [batch, 2 latent_dim + C H W]: of the waking z, of the dreamt z and of the dreamt pixels.
        label: of a conditional model: the classes of x, which the dreams have too, int64 [batch].
    """
    latent_dim = model.config.latent_dim
    of_z, dreamt_z, of_pixels = torch.split(eps, [latent_dim, latent_dim, x[0].numel()], dim=1)
    with torch.no_grad():
        q = model.posterior(x, label)
        draw = q.draw(of_z)
        kl = q.kl(draw, model.prior.given(label))
        dream = model.likelihood.sample_from(model.decode(dreamt_z, label), of_pixels.view_as(x))
    recon = model.likelihood.log_prob(x, model.decode(draw.z, label))
    wake = recon + model.prior.given(label).log_prob(draw.z)
    sleep = model.posterior(dream, label).log_prob(Draw(dreamt_z))
    return Objective(-(wake + sleep).mean(), Bound(recon.detach() - kl, recon.detach(), kl))


def noise_shape(name: str, importance_samples: int, latent_dim: int, pixels: int) -> tuple[int, ...]:
    """The shape of the noise that an objective takes for each example of so many pixels (of all channels)."""
    if name in MANY_SAMPLES:
        return importance_samples, latent_dim
    return (2 * latent_dim + pixels,) if name == "wake_sleep" else (latent_dim,)


def first_sample(eps: Tensor, latent_dim: int) -> Tensor:
    """The noise of one sample of z per example, [batch, latent_dim], of all that an objective takes."""
    return eps[:, :latent_dim] if eps.ndim == 2 else torch.select(eps, 1, 0)


def _without_score(q: Posterior) -> DiagonalGaussian:
    """q with its parameters held still: what is left of log q(z|x) is a function of z."""
    if not isinstance(q, DiagonalGaussian):
        raise UserError(f"{type(q).__name__} has no gradient without its score; expected a diagonal posterior")
    return q.detached()
