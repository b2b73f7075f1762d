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
    """A mixture of K diagonal Gaussians as the graph holds it."""

    thresholds: Floats
    """[K, 1]: component k is that whose thresholds up to k - 1 the row's number in 0 .. 2^24 - 1 has reached."""
    means: Floats
    """[K, latent_dim]."""
    sigmas: Floats
    """[K, latent_dim]."""


class ClassMixtureArrays(NamedTuple):
    """A mixture of K diagonal Gaussians for each class as the graph holds them."""

    thresholds: Floats
    """[classes, K], as of one mixture."""
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
            return partial(class_mixture_prior, mixtures=class_mixture_arrays(prior))
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
            return _class_mixture_z(class_mixture_arrays(prior), seed, index, eps, label)
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
    thresholds, means, sigmas = (prior.constant(name, value) for name, value in mixture._asdict().items())
    reached = prior("Cast", prior("GreaterOrEqual", number, thresholds), to=TensorProto.FLOAT)  # [K, n]
    first_axis = prior.constant("first_axis", np.array([0]))
    component = prior("Cast", prior("ReduceSum", reached, first_axis, keepdims=0), to=TensorProto.INT64)  # [n]
    distance = prior("Mul", prior("Gather", sigmas, component), _scaled(prior, eps))
    prior("Add", prior("Gather", means, component), distance, output="z")


def class_mixture_prior(noise: Nodes, prior: Nodes, latent_dim: int, mixtures: ClassMixtureArrays) -> None:
    """A mixture for each class, of which the row's component is chosen as of one mixture."""
    eps, number = _noise_and_number(noise, prior, latent_dim)
    thresholds, means, sigmas = (prior.constant(name, value) for name, value in mixtures._asdict().items())
    of_row = prior("Transpose", prior("Gather", thresholds, LABEL), perm=[1, 0])  # [K, n]
    reached = prior("Cast", prior("GreaterOrEqual", number, of_row), to=TensorProto.FLOAT)
    first_axis = prior.constant("first_axis", np.array([0]))
    place = prior("Cast", prior("ReduceSum", reached, first_axis, keepdims=0), to=TensorProto.INT64)  # [n]
    components = prior.constant("components", np.array([mixtures.thresholds.shape[1]]))
    component = prior("Add", prior("Mul", LABEL, components), place)
    distance = prior("Mul", prior("Gather", sigmas, component), _scaled(prior, eps))
    prior("Add", prior("Gather", means, component), distance, output="z")


def class_prior(noise: Nodes, prior: Nodes, latent_dim: int, classes: PerClass) -> None:
    """A Gaussian for each class. Temperature scales the distance from the centre of the row's class."""
    eps = add_noise(noise, "seed", "index", latent_dim)
    means, sigmas = map(prior.constant, ("means", "sigmas"), class_arrays(classes))
    distance = prior("Mul", prior("Gather", sigmas, LABEL), _scaled(prior, eps))
    prior("Add", prior("Gather", means, LABEL), distance, output="z")


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
    """The components of a mixture as the graph holds them."""
    log_weights, mu, logvar = (value.detach().cpu().double().numpy() for value in mixture)
    weights = np.exp(log_weights)
    thresholds = np.round(np.cumsum(weights) / weights.sum() * _NUMBERS)
    thresholds[-1] = _NUMBERS
    return MixtureArrays(
        thresholds[:, None].astype(np.float32), mu.astype(np.float32), np.exp(0.5 * logvar).astype(np.float32)
    )


def class_mixture_arrays(prior: MixturePerClass) -> ClassMixtureArrays:
    """The components of all classes as the graph holds them."""
    of_classes = [mixture_arrays(Mixture(*parts)) for parts in zip(*prior.mixture(), strict=True)]
    thresholds, means, sigmas = zip(*of_classes, strict=True)
    return ClassMixtureArrays(np.stack(thresholds)[..., 0], np.concatenate(means), np.concatenate(sigmas))


def _mixture_z(mixture: MixtureArrays, seed: Whole, index: Whole, eps: Floats) -> Floats:
    number = _numbers(seed, index, eps.shape[1])
    component = (number[:, None] >= mixture.thresholds[:, 0]).sum(1)
    z: Floats = mixture.means[component] + mixture.sigmas[component] * eps
    return z


def _class_mixture_z(
    mixtures: ClassMixtureArrays, seed: Whole, index: Whole, eps: Floats, label: Whole | None
) -> Floats:
    number, thresholds = _numbers(seed, index, eps.shape[1]), mixtures.thresholds[label]
    component = np.asarray(label) * thresholds.shape[1] + (number[:, None] >= thresholds).sum(1)
    z: Floats = mixtures.means[component] + mixtures.sigmas[component] * eps
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


def _scaled(nodes: Nodes, eps: str, output: str = "") -> str:
    """From eps, float32 [latent_dim, n], to eps times temperature, float32 [n, latent_dim]."""
    return nodes("Transpose", nodes("Mul", eps, "temperature"), perm=[1, 0], output=output)


class _FromNoise(nn.Module):
    def __init__(self, prior: FlowPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, eps: Tensor) -> Tensor:
        return self.prior.from_noise(eps)
