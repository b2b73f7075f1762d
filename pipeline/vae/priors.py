"""p(z): the standard normal, and those that are learned."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from pipeline.errors import UserError
from pipeline.vae.condition import check_label
from pipeline.vae.densities import LOG_2PI, bounded_logvar, gaussian_kl_per_dimension, gaussian_log_prob
from pipeline.vae.flows import FlowSize, coupling_flow

Encode = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]

PRIORS = ("standard", "mixture", "vamp", "per_class", "flow")
_DARKEST = 0.02  # of a pseudo-input at the start, and 1 minus the brightest: beyond, its gradient is too small to learn
_MOMENT_DRAWS = 10_000  # of a flow: its moments are then known to a hundredth of a standard deviation


class Mixture(NamedTuple):
    """Diagonal Gaussians: log-weights [K], means and log-variances [K, latent_dim]."""

    log_weights: Tensor
    mu: Tensor
    logvar: Tensor


class Prior(nn.Module):
    """p(z) over z of shape [batch, latent_dim]."""

    has_closed_kl = False

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def given(self, label: Tensor | None) -> "Prior":  # noqa: ARG002
        """p(z|y) of the class of each row, int64 [batch]; most priors are the same for all of them."""
        return self

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        raise NotImplementedError

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        """KL(q || p) in nats, [batch], or where it has no closed form, log q(z) - log p(z) of the given draw of q."""
        return gaussian_log_prob(z, mu, logvar) - self.log_prob(z)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension of z, both [latent_dim], or [batch, latent_dim] where rows differ."""
        raise NotImplementedError

    def kl_per_dimension(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """How far a Gaussian q is from p in each dimension, in nats: [batch, latent_dim] -> [batch, latent_dim].

        KL to the Gaussian with the mean and the variance of p's dimension; of the standard normal these add up to the
        KL, of another prior, whose dimensions are not independent, they order the dimensions.
        """
        mean, variance = (moment.to(mu) for moment in self.moments())
        return gaussian_kl_per_dimension((mu - mean) / variance.sqrt(), logvar - variance.log())

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        raise NotImplementedError


class StandardNormal(Prior):
    """N(0, I)."""

    has_closed_kl = True

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        return gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        """KL(q || p) in nats, [batch], whatever z (arXiv 1312.6114, Appendix B)."""
        return gaussian_kl_per_dimension(mu, logvar).sum(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Zeros and ones, each [latent_dim]."""
        return torch.zeros(self.latent_dim), torch.ones(self.latent_dim)

    def kl_per_dimension(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """KL(q || p) of each dimension of a Gaussian q, in nats: [batch, latent_dim] -> [batch, latent_dim]."""
        return gaussian_kl_per_dimension(mu, logvar)

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        return torch.randn(count, self.latent_dim, generator=generator)


class Normal(Prior):
    """N(mu, diag(exp(logvar))), one for each row of z, both [batch, latent_dim]."""

    has_closed_kl = True

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        super().__init__(mu.shape[1])
        self.mu, self.logvar = mu, logvar

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        return gaussian_log_prob(z, self.mu, self.logvar)

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        """KL(q || p) in nats, [batch], whatever z."""
        return self.kl_per_dimension(mu, logvar).sum(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each row, both [batch, latent_dim]."""
        return self.mu, self.logvar.exp()

    def kl_per_dimension(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """KL(q || p) of each dimension of a Gaussian q, in nats: [batch, latent_dim] -> [batch, latent_dim]."""
        return gaussian_kl_per_dimension((mu - self.mu) * torch.exp(-0.5 * self.logvar), logvar - self.logvar)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU; `count` is that of the rows."""
        eps = torch.randn(count, self.latent_dim, generator=generator)
        return (self.mu + torch.exp(0.5 * self.logvar) * eps.to(self.mu)).float().cpu()


class PerClass(Prior):
    """p(z|y) = N(mu_y, diag(exp(logvar_y))), learned; `given` says which. Without a class there is no density."""

    has_closed_kl = True

    def __init__(self, latent_dim: int, classes: int) -> None:
        super().__init__(latent_dim)
        self.mu = nn.Parameter(torch.zeros(classes, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(classes, latent_dim))

    def given(self, label: Tensor | None) -> Normal:
        """p(z|y) of the class of each row, int64 [batch].

        Raises:
            UserError: the label is missing.
        """
        check_label(label, len(self.mu))
        return Normal(self.mu[label], bounded_logvar(self.logvar)[label])


class MixturePrior(Prior):
    """A mixture of K diagonal Gaussians; `mixture` says which."""

    def mixture(self) -> Mixture:
        """The components, as functions of the weights."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        return mixture_log_prob(z, self.mixture())

    @torch.no_grad()
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension of z, both [latent_dim]."""
        log_weights, centres, spread = self.mixture()
        weights = log_weights.exp()[:, None]
        mean = (weights * centres).sum(0)
        return mean, (weights * (spread.exp() + (centres - mean).square())).sum(0)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        log_weights, mu, logvar = (value.cpu() for value in self.mixture())
        chosen = torch.multinomial(log_weights.exp(), count, replacement=True, generator=generator)
        eps = torch.randn(count, self.latent_dim, generator=generator)
        return mu[chosen] + torch.exp(0.5 * logvar[chosen]) * eps


class LearnedMixture(MixturePrior):
    """Weights, means and log-variances are the model's; they start as broad Gaussians around draws from N(0, I)."""

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__(latent_dim)
        self.logits = nn.Parameter(torch.zeros(components))
        self.mu = nn.Parameter(torch.randn(components, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(components, latent_dim))

    def mixture(self) -> Mixture:
        """The components; log-variances by `bounded_logvar`."""
        return Mixture(self.logits.log_softmax(0), self.mu, bounded_logvar(self.logvar))


class VampPrior(MixturePrior):
    """The mean of q(z|u) over K learned pseudo-inputs u (Tomczak and Welling 2018, arXiv 1705.07120, equation 9).

    `encode` gives mu and logvar of images [K, C, H, W] in [0, 1]. Pseudo-inputs are the sigmoid of weights, which
    `start_from` sets to images. Where the encoder sees one of `classes`, each pseudo-input keeps the class of the image
    that it started from, and p(z), the same for all classes, is the mean of q(z|u, y_u).
    """

    label: Tensor | None

    def __init__(
        self, latent_dim: int, components: int, image_shape: tuple[int, int, int], encode: Encode, classes: int = 0
    ) -> None:
        super().__init__(latent_dim)
        self.logits = nn.Parameter(torch.randn(components, *image_shape))
        self.register_buffer("label", torch.arange(components) % classes if classes else None)
        self._classes = classes
        self._encode = (encode,)  # in a tuple: the encoder is the model's, not a part of the prior

    def mixture(self) -> Mixture:
        """The posteriors of the pseudo-inputs, in equal shares."""
        mu, logvar = self._encode[0](torch.sigmoid(self.logits), self.label)
        shares = torch.full((len(mu),), len(mu), dtype=mu.dtype, device=mu.device)
        return Mixture(-shares.log(), mu, logvar)

    @torch.no_grad()
    def start_from(self, x: Tensor, label: Tensor | None = None) -> None:
        """Make images [K, C, H, W] in [0, 1] the pseudo-inputs; a conditional model wants their classes, int64 [K].

        Raises:
            UserError: the label is missing, or is one too many.
        """
        check_label(label, self._classes)
        self.logits.copy_(x.clamp(_DARKEST, 1 - _DARKEST).logit())
        if self.label is not None and label is not None:
            self.label.copy_(label)


class FixedMixture(MixturePrior):
    """A mixture as it is now: constants, for an exported graph or a density that was fitted after training."""

    @torch.no_grad()
    def __init__(self, mixture: Mixture) -> None:
        super().__init__(mixture.mu.shape[1])
        for name, value in mixture._asdict().items():
            self.register_buffer(name, value.detach().clone())

    def mixture(self) -> Mixture:
        """The components."""
        return Mixture(*(self.get_buffer(name) for name in Mixture._fields))


class FlowPrior(Prior):
    """Standard-normal noise, moved by coupling layers (RealNVP, arXiv 1605.08803); it starts as N(0, I)."""

    def __init__(self, latent_dim: int, size: FlowSize) -> None:
        super().__init__(latent_dim)
        self.flow = coupling_flow(latent_dim, size)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, by the noise that z came from; [batch, latent_dim] -> [batch]."""
        eps, log_diagonal = self.flow.inverse(z)
        return gaussian_log_prob(eps, torch.zeros_like(eps), torch.zeros_like(eps)) + log_diagonal.sum(1)

    def from_noise(self, eps: Tensor) -> Tensor:
        """Standard-normal noise -> z, each [batch, latent_dim]."""
        z: Tensor = self.flow(eps).z
        return z

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension of 10,000 draws, the same at every call; both [latent_dim]."""
        z = self.sample(_MOMENT_DRAWS, Generator().manual_seed(0))
        return z.mean(0), z.var(0)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        eps = torch.randn(count, self.latent_dim, generator=generator)
        return self.from_noise(eps.to(next(self.parameters()))).float().cpu()


def mixture_log_prob(z: Tensor, mixture: Mixture) -> Tensor:
    """log of the mixture's density in nats; [batch, latent_dim] -> [batch].

    The squares are expanded into matrix products, so that memory grows with batch * K alone, and these are of float64:
    near a narrow component z^2 - 2 z mu + mu^2 is a small difference of large terms.
    """
    log_weights, mu, logvar = (value.double() for value in mixture)
    precision, wide = torch.exp(-logvar), z.double()
    squares = (
        (mu.square() * precision).sum(1) + wide.square() @ precision.T - 2 * wide @ (mu * precision).T
    )  # (batch, K)
    constants = log_weights - 0.5 * (LOG_2PI + logvar).sum(1)
    return (constants - 0.5 * squares).to(z.dtype).logsumexp(1)


def make_prior(
    name: str,
    latent_dim: int,
    components: int,
    image_shape: tuple[int, int, int],
    encode: Encode,
    classes: int = 0,
    *,
    flow: FlowSize,
) -> Prior:
    """Build a prior by its name in params.yaml.

    `components` are those of mixture and vamp, `classes` those of a conditional model, `flow` is the size of a flow.

    Raises:
        UserError: there is no such prior, or no class for it.
    """
    match name:
        case "standard":
            return StandardNormal(latent_dim)
        case "mixture":
            return LearnedMixture(latent_dim, components)
        case "vamp":
            return VampPrior(latent_dim, components, image_shape, encode, classes)
        case "per_class":
            if not classes:
                raise UserError("model.prior is 'per_class' without classes; expected model.condition: label")
            return PerClass(latent_dim, classes)
        case "flow":
            return FlowPrior(latent_dim, flow)
    raise UserError(f"model.prior is {name!r}; expected one of {', '.join(PRIORS)}")
