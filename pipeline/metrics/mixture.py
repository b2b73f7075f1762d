"""A Gaussian mixture fitted to the training codes: where the prior has holes, it samples from where the codes are.

Fitted after training (Ghosh et al. 2020, arXiv 1903.12436, section 4), for sampling only: it changes no likelihood.
"""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pipeline.dataset.batches import evenly
from pipeline.errors import UserError
from pipeline.vae.priors.mixtures import Mixture

MOST = 20_000
"""Codes that it is fitted to."""

_LEAST_VARIANCE = 1e-6


def fit_mixture(codes: Tensor, components: int, seed: int, kind: str = "") -> Mixture:
    """Diagonal Gaussians of greatest likelihood of codes [n, latent_dim], by EM; `kind` says in an error whose.

    Raises:
        UserError: there are fewer codes than components.
    """
    if len(codes) < components:
        raise UserError(
            f"evaluate.aggregate_components is {components} with {len(codes)} training images{kind}; "
            "expected no more than those"
        )
    fitted = GaussianMixture(
        components,
        covariance_type="diag",
        reg_covar=_LEAST_VARIANCE,
        init_params="k-means++",
        random_state=seed % 2**32,
    ).fit(codes[evenly(len(codes), MOST)].double().numpy())
    parts = np.log(fitted.weights_), fitted.means_, np.log(fitted.covariances_)
    return Mixture(*(torch.from_numpy(part).float() for part in parts))


def fit_mixture_per_class(codes: Tensor, labels: Tensor, classes: Sequence[str], components: int, seed: int) -> Mixture:
    """`fit_mixture` of the codes of each class; `labels` are their places in `classes`, int64 [n].

    Returns:
        log-weights [classes, components], means and log-variances [classes, components, latent_dim].

    Raises:
        UserError: a class has fewer codes than components.
    """
    fitted = [
        fit_mixture(codes[labels == place], components, seed, f" of the class {name!r}")
        for place, name in enumerate(classes)
    ]
    return Mixture(*(torch.stack(parts) for parts in zip(*fitted, strict=True)))
