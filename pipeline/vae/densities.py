"""Log-densities and divergences in closed form, in nats."""

import math
from typing import Any

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
PLAIN_LOGVAR = 20.0  # a standard deviation of exp(10): what lies between that and exp(-10) is left as it is


def bounded_logvar(value: Tensor) -> Tensor:
    """A log-variance that no network drives out of the reach of float32; shaped as `value`.

    The identity where |value| <= 20, so that no density or bound is other than the formulas say; beyond, it goes on as
    the logarithm: sign(value) * (20 + log(1 + |value| - 20)). The function rises everywhere, its slope is 1 at the seam
    and never 0, and the variance goes on as a straight line in place of an exponential.
    """
    eager_on_cpu = value.device.type == "cpu" and not torch.compiler.is_compiling()
    if eager_on_cpu and value.detach().abs().max() <= PLAIN_LOGVAR:  # elsewhere to ask would cost more than to compute
        return value
    bounded: Tensor = _BoundedLogvar.apply(value)
    return bounded


def sum_over_event(value: Tensor) -> Tensor:
    """Sum every dimension but the first: [batch, ...] -> [batch]."""
    return value.flatten(1).sum(1)


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of independent Bernoulli variables; `x` in {0, 1} and `logits` are [batch, ...] -> [batch].

    For x strictly between 0 and 1 the value is a negative cross-entropy, not a log-density.
    """
    x, logits = torch.broadcast_tensors(x, logits)  # type: ignore[no-untyped-call]
    value: Tensor = _BernoulliSum.apply(x.flatten(1), logits.flatten(1))
    return value


def bernoulli_elements(x: Tensor, logits: Tensor) -> Tensor:
    """log p of each element of `bernoulli_log_prob`, in the shape to which both broadcast."""
    elements: Tensor = _BernoulliElements.apply(*torch.broadcast_tensors(x, logits))  # type: ignore[no-untyped-call]
    return elements


def gaussian_log_prob(x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(x; mu, exp(logvar)) with a diagonal covariance; all broadcast to [batch, ...] -> [batch]."""
    return sum_over_event(gaussian_elements(x, mu, logvar))


def gaussian_elements(x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(x; mu, exp(logvar)) of each element, in the shape to which all broadcast."""
    return -0.5 * (LOG_2PI + logvar + (x - mu).square() * torch.exp(-logvar))


def gaussian_kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each dimension: [batch, latent_dim] -> [batch, latent_dim].

    Kingma and Welling, arXiv 1312.6114, Appendix B.
    """
    return 0.5 * (mu.square() + logvar.exp() - logvar - 1)


class _BoundedLogvar(torch.autograd.Function):
    """`bounded_logvar`, with the derivative written out: 1 / (1 + what lies beyond the seam), in two operations."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        plain = value.clamp(-PLAIN_LOGVAR, PLAIN_LOGVAR)
        beyond = value - plain
        distance = beyond.abs()
        ctx.save_for_backward(distance)
        return torch.addcmul(plain, beyond.sign(), distance.log1p())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (distance,) = ctx.saved_tensors
        slope: Tensor = gradient / (1 + distance)
        return slope


class _BernoulliElements(torch.autograd.Function):
    """x * logits - softplus(logits) of each element, with the derivative written out.

    softplus is log(1 + exp(-|logits|)) + max(logits, 0): log1p would keep what lies below 6e-8 nats of an element, and
    costs ten times as much on a CPU. Written out, the derivative saves the passes over memory that most of the time
    goes to.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor) -> Tensor:
        ctx.save_for_backward(x, logits)
        softplus = logits.abs().neg_().exp_().add_(1).log_().add_(logits.clamp_min(0))
        return (x * logits).sub_(softplus)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        x, logits = ctx.saved_tensors
        of_x = gradient * logits if ctx.needs_input_grad[0] else None
        return of_x, torch.sub(x, torch.sigmoid(logits)).mul_(gradient)


class _BernoulliSum(torch.autograd.Function):
    """The sum of x * logits - softplus(logits) over [batch, d].

    softplus is max(logits, 0) - log sigmoid(|logits|), and a sum of logarithms is the logarithm of a product: of eight
    factors between 1/2 and 1, so that nothing underflows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor) -> Tensor:
        ctx.save_for_backward(x, logits)
        batch, pixels = logits.shape
        factors = math.gcd(pixels, 8)
        product = logits.abs().sigmoid_().view(batch, factors, pixels // factors).prod(1)
        return (x * logits).sub_(logits.clamp_min(0)).sum(1).add_(product.log_().sum(1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        x, logits = ctx.saved_tensors
        gradient = gradient[:, None]
        of_x = gradient * logits if ctx.needs_input_grad[0] else None
        return of_x, torch.sub(x, torch.sigmoid(logits)).mul_(gradient)
