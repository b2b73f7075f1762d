"""The prior inside `sampler.onnx`: from a row's seed and index to z. What a prior has learned is stored as constants.

Each kind of prior has a function that appends its nodes; `graph_of` says which, `prior_z` computes the same in torch.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

from pipeline.graphs.nodes import Nodes
from pipeline.graphs.noise import add_noise, add_noise_and_word
from pipeline.graphs.onnx_export import to_onnx
from pipeline.runtime.labels import LABEL
from pipeline.runtime.noise import random_integers, standard_normal
from pipeline.vae.priors.base import Prior
from pipeline.vae.priors.class_mixtures import MixturePerClass
from pipeline.vae.priors.flow import FlowPrior
from pipeline.vae.priors.mixtures import Mixture, MixturePrior
from pipeline.vae.priors.normal import PerClass, StandardNormal

_SHIFT = 2**40  # leaves the 24 upper bits of a word: whole numbers that float32 holds exactly
_NUMBERS = 2**24

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]
PriorGraph = Callable[[Nodes, Nodes, int], None]
"""Appends the nodes from `seed`, `index` and `temperature`, each [n], to `z`, float32 [n, latent_dim]: to the first
argument those of the noise, to the second those of the prior, for so many dimensions. That of a prior per class has an
input more, `label`, int64 [n]."""


class MixtureArrays(NamedTuple):
    """A mixture of K diagonal Gaussians for each class, or one for all, as the graph holds them."""

    thresholds: Floats
    """[classes, K], [1, K] of one for all: component k is that whose thresholds up to k - 1 the row's number in
    0 .. 2^24 - 1 has reached."""
    means: Floats
    """[classes * K, latent_dim], the first class's first."""
    sigmas: Floats
    """[classes * K, latent_dim]."""


def graph_of(prior: Prior) -> PriorGraph:
    """What puts a prior into the sampler.

    Raises:
        TypeError: there is no graph of such a prior.
    """
    match prior:
        case StandardNormal():
            return standard_prior
        case MixturePrior():
            return partial(mixture_prior, mixture=mixture_arrays(prior.mixture()))
        case MixturePerClass():
            return partial(class_mixture_prior, mixtures=mixture_arrays(prior.mixture()))
        case FlowPrior():
            return partial(flow_prior, flow=flow_model(prior))
        case PerClass():
            return partial(class_prior, classes=prior)
    raise TypeError(f"{type(prior).__name__} has no graph; expected a prior that the sampler knows")


def prior_z(prior: Prior, seed: Whole, index: Whole, label: Whole | None = None) -> Floats:
    """What the sampler's graph makes of rows at temperature 1, by numpy and torch: float32 [n, latent_dim]."""
    eps = standard_normal(seed, index, prior.latent_dim)
    match prior:
        case MixturePrior():
            return _mixture_z(mixture_arrays(prior.mixture()), seed, index, eps)
        case MixturePerClass():
            return _mixture_z(mixture_arrays(prior.mixture()), seed, index, eps, label)
        case FlowPrior():
            with torch.no_grad():
                return prior.from_noise(torch.from_numpy(eps)).numpy()
        case PerClass():
            means, sigmas = class_arrays(prior)
            return means[label] + sigmas[label] * eps
    return eps


def standard_prior(noise: Nodes, prior: Nodes, latent_dim: int) -> None:
    """The standard normal. Temperature scales the distance from the centre: at 0 every row is that centre."""
    _scaled(prior, add_noise(noise, "seed", "index", latent_dim), output="z")


def mixture_prior(noise: Nodes, prior: Nodes, latent_dim: int, mixture: MixtureArrays) -> None:
    """A mixture: the row's component is a function of a word of its own, in whole numbers: the same in every runtime.

    Temperature scales the distance from the component's centre.
    """
    eps, number = _noise_and_number(noise, prior, latent_dim)
    thresholds = prior.constant("thresholds", mixture.thresholds.T)  # [K, 1]
    _about(prior, eps, _reached(prior, number, thresholds), mixture.means, mixture.sigmas)


def class_mixture_prior(noise: Nodes, prior: Nodes, latent_dim: int, mixtures: MixtureArrays) -> None:
    """A mixture for each class, of which the row's component is chosen as of one mixture."""
    eps, number = _noise_and_number(noise, prior, latent_dim)
    thresholds = prior.constant("thresholds", mixtures.thresholds)
    of_row = prior("Transpose", prior("Gather", thresholds, LABEL), perm=[1, 0])  # [K, n]
    place = _reached(prior, number, of_row)
    components = prior.constant("components", np.array([mixtures.thresholds.shape[1]]))
    component = prior("Add", prior("Mul", LABEL, components), place)
    _about(prior, eps, component, mixtures.means, mixtures.sigmas)


def class_prior(noise: Nodes, prior: Nodes, latent_dim: int, classes: PerClass) -> None:
    """A Gaussian for each class. Temperature scales the distance from the centre of the row's class."""
    _about(prior, add_noise(noise, "seed", "index", latent_dim), LABEL, *class_arrays(classes))


def class_arrays(prior: PerClass) -> tuple[Floats, Floats]:
    """Means and standard deviations of the classes as the graph holds them, each [classes, latent_dim]."""
    normal = prior.given(torch.arange(len(prior.mu), device=prior.mu.device))
    mu, logvar = (value.detach().cpu().double().numpy() for value in (normal.mu, normal.logvar))
    return mu.astype(np.float32), np.exp(0.5 * logvar).astype(np.float32)


def flow_prior(noise: Nodes, prior: Nodes, latent_dim: int, flow: ModelProto) -> None:
    """A flow, `eps` -> `z`. Temperature scales the noise before it: at 0 every row is where the flow takes 0."""
    inner = f"{prior.prefix}flow/"
    graph = onnx.compose.add_prefix(flow, inner).graph
    _scaled(prior, add_noise(noise, "seed", "index", latent_dim), output=f"{inner}eps")
    prior.nodes += graph.node
    prior.constants |= {tensor.name: tensor for tensor in graph.initializer}
    prior("Identity", f"{inner}z", output="z")


def flow_model(prior: FlowPrior) -> ModelProto:
    """A flow as a graph of its own: `eps` -> `z`, each float32 [n, latent_dim]."""
    return to_onnx(_FromNoise(prior), [torch.zeros(2, prior.latent_dim)], ["eps"], ["z"])


def mixture_arrays(mixture: Mixture) -> MixtureArrays:
    """The components of a mixture, [K, ...], or of one for each class, [classes, K, ...], as the graph holds them."""
    log_weights, mu, logvar = (value.detach().cpu().double().numpy() for value in mixture)
    weights = np.exp(np.atleast_2d(log_weights))  # (classes, K)
    thresholds = np.round(np.cumsum(weights, 1) / weights.sum(1, keepdims=True) * _NUMBERS)
    thresholds[:, -1] = _NUMBERS
    means, sigmas = (value.reshape(-1, mu.shape[-1]).astype(np.float32) for value in (mu, np.exp(0.5 * logvar)))
    return MixtureArrays(thresholds.astype(np.float32), means, sigmas)


def _mixture_z(mixture: MixtureArrays, seed: Whole, index: Whole, eps: Floats, label: Whole | None = None) -> Floats:
    number, of_row = _numbers(seed, index, eps.shape[1]), np.zeros_like(index) if label is None else np.asarray(label)
    thresholds = mixture.thresholds[of_row]  # (n, K)
    component = of_row * thresholds.shape[1] + (number[:, None] >= thresholds).sum(1)
    z: Floats = mixture.means[component] + mixture.sigmas[component] * eps
    return z


def _numbers(seed: Whole, index: Whole, latent_dim: int) -> NDArray[np.uint64]:
    """The number that chooses the component of each row, in 0 .. 2^24 - 1."""
    pairs = (latent_dim + 1) // 2
    numbers: NDArray[np.uint64] = random_integers(seed, index, 2 * (pairs + 1))[:, pairs] // np.uint64(_SHIFT)
    return numbers


def _noise_and_number(noise: Nodes, prior: Nodes, latent_dim: int) -> tuple[str, str]:
    """eps, float32 [latent_dim, n], and what chooses a component, float32 [1, n], a whole number in 0 .. 2^24 - 1."""
    eps, word = add_noise_and_word(noise, "seed", "index", latent_dim)
    shift = prior.constant("shift", np.array([[_SHIFT]], np.uint64))
    return eps, prior("Cast", prior("Div", word, shift), to=TensorProto.FLOAT)


def _reached(prior: Nodes, number: str, thresholds: str) -> str:
    """How many of the thresholds, [K, n] or [K, 1], a row's number has reached: int64 [n]."""
    reached = prior("Cast", prior("GreaterOrEqual", number, thresholds), to=TensorProto.FLOAT)  # [K, n]
    first_axis = prior.constant("first_axis", np.array([0]))
    return prior("Cast", prior("ReduceSum", reached, first_axis, keepdims=0), to=TensorProto.INT64)


def _about(prior: Nodes, eps: str, chosen: str, means: Floats, sigmas: Floats) -> None:
    """From eps to `z` about the centre that is chosen for each row, int64 [n], of these, each [m, latent_dim]."""
    centres, deviations = prior.constant("means", means), prior.constant("sigmas", sigmas)
    distance = prior("Mul", prior("Gather", deviations, chosen), _scaled(prior, eps))
    prior("Add", prior("Gather", centres, chosen), distance, output="z")


def _scaled(nodes: Nodes, eps: str, output: str = "") -> str:
    """From eps, float32 [latent_dim, n], to eps times temperature, float32 [n, latent_dim]."""
    return nodes("Transpose", nodes("Mul", eps, "temperature"), perm=[1, 0], output=output)


class _FromNoise(nn.Module):
    def __init__(self, prior: FlowPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, eps: Tensor) -> Tensor:
        return self.prior.from_noise(eps)
