"""The prior inside `sampler.onnx`: from the row's noise to z. A learned mixture is stored as constants."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from pipeline.graphs.nodes import Nodes
from pipeline.graphs.variants.layers import constants
from pipeline.runtime.noise import random_integers, standard_normal
from pipeline.vae.priors import MixturePrior, Prior

_SHIFT = 2**40  # leaves the 24 upper bits of a word: whole numbers that float32 holds exactly
_NUMBERS = 2**24
_PREFIX = "prior/"

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]


class MixtureArrays(NamedTuple):
    """A mixture of K diagonal Gaussians as the graph holds it."""

    thresholds: Floats
    """[K, 1]: component k is that whose thresholds up to k - 1 the row's number in 0 .. 2^24 - 1 has reached."""
    means: Floats
    """[K, latent_dim]."""
    sigmas: Floats
    """[K, latent_dim]."""


def mixture_arrays(prior: Prior) -> MixtureArrays | None:
    """The components of a prior; None for the standard normal."""
    if not isinstance(prior, MixturePrior):
        return None
    log_weights, mu, logvar = (value.detach().cpu().double().numpy() for value in prior.mixture())
    weights = np.exp(log_weights)
    thresholds = np.round(np.cumsum(weights) / weights.sum() * _NUMBERS)
    thresholds[-1] = _NUMBERS
    return MixtureArrays(
        thresholds[:, None].astype(np.float32), mu.astype(np.float32), np.exp(0.5 * logvar).astype(np.float32)
    )


def mixture_of(sampler: ModelProto) -> MixtureArrays | None:
    """The components that a sampler's graph holds; None where its prior is the standard normal."""
    stored = constants(sampler.graph)
    if f"{_PREFIX}means" not in stored:
        return None
    return MixtureArrays(*(stored[_PREFIX + name] for name in MixtureArrays._fields))


def standard_prior(nodes: Nodes, eps: str, temperature: str, output: str) -> str:
    """z, float32 [n, latent_dim], of the standard normal, from eps, float32 [latent_dim, n].

    Temperature, float32 [n], scales the distance from the centre: at 0 every row is that centre.
    """
    return nodes("Transpose", nodes("Mul", eps, temperature), perm=[1, 0], output=output)


def mixture_prior(nodes: Nodes, eps: str, word: str, temperature: str, mixture: MixtureArrays, output: str) -> str:
    """z, float32 [n, latent_dim], of a mixture, from eps, float32 [latent_dim, n], and a word a row, uint64 [1, n].

    The component is a function of the word alone, in whole numbers: the same in every runtime. Temperature, float32
    [n], scales the distance from the component's centre.
    """
    shift = nodes.constant("shift", np.array([[_SHIFT]], np.uint64))
    number = nodes("Cast", nodes("Div", word, shift), to=TensorProto.FLOAT)  # [1, n]
    thresholds, means, sigmas = (nodes.constant(name, value) for name, value in mixture._asdict().items())
    reached = nodes("Cast", nodes("GreaterOrEqual", number, thresholds), to=TensorProto.FLOAT)  # [K, n]
    first_axis = nodes.constant("first_axis", np.array([0]))
    component = nodes("Cast", nodes("ReduceSum", reached, first_axis, keepdims=0), to=TensorProto.INT64)  # [n]
    distance = nodes("Mul", nodes("Gather", sigmas, component), standard_prior(nodes, eps, temperature, output=""))
    return nodes("Add", nodes("Gather", means, component), distance, output=output)


def prior_z(
    mixture: MixtureArrays | None, seed: NDArray[np.int64], index: NDArray[np.int64], latent_dim: int
) -> Floats:
    """What the sampler's graph makes of rows at temperature 1, in numpy: float32 [n, latent_dim]."""
    eps = standard_normal(seed, index, latent_dim)
    if mixture is None:
        return eps
    pairs = (latent_dim + 1) // 2
    number = random_integers(seed, index, 2 * (pairs + 1))[:, pairs] // np.uint64(_SHIFT)
    component = (number[:, None] >= mixture.thresholds[:, 0]).sum(1)
    z: Floats = mixture.means[component] + mixture.sigmas[component] * eps
    return z
