"""What evaluate tells of a model as a density, by the names under which it is reported; a name carries its protocol.

All nats are nats per image; where a mean over images has a standard error beside it, that is `<name>_stderr`.
"""

import math

import torch
from rich.progress import Progress
from torch import Tensor

from pipeline.dataset.batches import evenly
from pipeline.dataset.noise import stream_key
from pipeline.metrics.aggregate import (
    draw_codes,
    fitted_marginal_kl,
    fitted_marginal_kl_of_classes,
    mutual_information,
)
from pipeline.metrics.ais import Annealing, estimate_ais
from pipeline.metrics.amortisation import amortisation_gap
from pipeline.metrics.likelihood import Encoded, Estimates, curve_sizes, estimate, fastest_weigh
from pipeline.metrics.streams import Stream
from pipeline.params import EvaluateParams
from pipeline.quality.mean import mean_and_stderr
from pipeline.vae.likelihoods.make import bits_per_dim
from pipeline.vae.model import VAE
from pipeline.vae.posteriors import DiagonalGaussian
from pipeline.vae.priors.normal import PerClass

_TRAIN_SAMPLES = 10  # of z for the ELBO of a training image; their noise is small beside the spread of the images

Metrics = dict[str, float]


def density_metrics(model: VAE, test: Encoded, train: Encoded, params: EvaluateParams, progress: Progress) -> Metrics:
    """All that is measured of p(x), p(z) and q(z|x); `train` holds some training images, to compare with."""
    k = params.importance_samples
    task = progress.add_task(f"importance bound, K = {k}", total=len(test.mu))
    estimates = estimate(
        model,
        test,
        k,
        params.seed,
        params.batch_log_weights,
        lambda done: progress.advance(task, done),
        fastest_weigh(test, k),
    )
    metrics = likelihood_metrics(estimates, k, test.pixels[0].numel())
    metrics |= train_test_gap(model, estimates, train, params)
    metrics |= information_metrics(model, test, train, metrics["test/kl"], params.seed)
    metrics |= amortisation_metrics(model, test, params)
    return metrics | ais_metrics(model, test, estimates, params, progress)


def likelihood_metrics(estimates: Estimates, samples: int, values: int) -> Metrics:
    """The ELBO and its terms, and the importance bound with each number of samples up to K = `samples`.

    `values` is how many stored values an image has.
    """
    curve = zip(curve_sizes(samples), estimates.curve.double().mean(0).tolist(), strict=True)
    discrete_nll, _ = mean_and_stderr(-estimates.discrete_bound)
    return {
        "test/elbo": estimates.elbo.mean().item(),
        "test/recon": estimates.recon.mean().item(),
        "test/kl": estimates.kl.mean().item(),
        **{f"test/nll_iw{size}": -bound for size, bound in curve},
        f"test/nll_iw{samples}_stderr": mean_and_stderr(estimates.iw_bound)[1],
        "test/bits_per_dim": bits_per_dim(discrete_nll, values),
    }


def train_test_gap(model: VAE, test: Estimates, train: Encoded, params: EvaluateParams) -> Metrics:
    """By how much the ELBO of training images is higher than that of test images."""
    seed = stream_key(params.seed, Stream.TRAIN)
    known = estimate(model, train, _TRAIN_SAMPLES, seed, params.batch_log_weights).elbo
    (known_mean, known_error), (mean, error) = mean_and_stderr(known), mean_and_stderr(test.elbo)
    stderr = (known_error**2 + error**2) ** 0.5
    return {"test/train_test_gap": known_mean - mean, "test/train_test_gap_stderr": stderr}


def information_metrics(model: VAE, test: Encoded, train: Encoded, kl: float, seed: int) -> Metrics:
    """What z says of x, and how far the aggregate posterior is from the prior; `kl` is test/kl.

    One estimate of the mutual information takes the density of every code under every posterior, and one prior for all,
    so it is told of Gaussian posteriors under such a prior alone, beside the value that it cannot exceed; the other is
    what the fitted gap leaves of the KL. Of a conditional model the codes of each class are held against the prior on
    their own: z is drawn beside a class, not of all, and what z says is of x where the class is known.
    """
    codes, others = draw_codes(model, test, seed), draw_codes(model, train, stream_key(seed, Stream.TRAIN))
    if train.labels is not None and test.labels is not None:
        gap = fitted_marginal_kl_of_classes(others, train.labels, codes, test.labels, seed)
    else:
        gap = fitted_marginal_kl(others, codes, seed)
    found = {}
    if len(gap) > 1:
        found = with_stderr("test/marginal_kl_fitted", gap)
        found["test/mutual_information_fitted"] = kl - found["test/marginal_kl_fitted"]
    if not isinstance(model.prior, PerClass) and has_gaussian_posteriors(model, test):
        information, _ = mean_and_stderr(mutual_information(codes, test.mu, test.logvar))
        found |= {
            "test/mutual_information_nce": information,
            "test/mutual_information_nce_ceiling": math.log(len(codes.z)),
            "test/marginal_kl_nce": kl - information,
        }
    return found


def amortisation_metrics(model: VAE, test: Encoded, params: EvaluateParams) -> Metrics:
    """What own posteriors would win for `evaluate.amortisation_images`, from all over the split; of 0, nothing."""
    some = evenly(len(test.mu), params.amortisation_images)
    return with_stderr("test/amortisation_gap", amortisation_gap(model, test, some, params.seed)) if len(some) else {}


def ais_metrics(model: VAE, test: Encoded, estimates: Estimates, params: EvaluateParams, progress: Progress) -> Metrics:
    """What annealing says of `evaluate.ais_images`, and how much less the importance bound says of the same ones."""
    some = evenly(len(test.mu), params.ais_images)
    if not len(some):
        return {}
    task = progress.add_task(f"annealing, {params.ais_steps} steps", total=len(some) * params.ais_steps)
    annealing = Annealing(params.ais_steps, params.ais_chains, params.ais_schedule, params.seed)
    found = estimate_ais(
        model, test, some, annealing, params.batch_log_weights, lambda done: progress.advance(task, done)
    )
    k, steps, device = params.importance_samples, params.ais_steps, estimates.iw_bound.device
    above = found - estimates.iw_bound[some.to(device)]
    return with_stderr(f"test/nll_ais{steps}", -found) | with_stderr(f"test/nll_iw{k}_above_ais{steps}", above)


def has_gaussian_posteriors(model: VAE, given: Encoded) -> bool:
    """Whether mu and logvar say all of q(z|x)."""
    first = torch.arange(1)
    with torch.no_grad():
        return isinstance(model.posterior(given.x(first), given.label(first)), DiagonalGaussian)


def with_stderr(name: str, values: Tensor) -> Metrics:
    """The mean over images, [n], and beside it its standard error, which one image does not have."""
    if len(values) == 1:
        return {name: values.double().item()}
    mean, stderr = mean_and_stderr(values)
    return {name: mean, f"{name}_stderr": stderr}
