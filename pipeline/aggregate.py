"""The aggregate density: a Gaussian mixture fitted to the training codes, or one to those of each class, for sampling.

Written by evaluate as aggregate.safetensors, read by export. A file without components says that none was fitted.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pipeline.errors import UserError
from pipeline.vae.priors.class_mixtures import MixturePerClass, fixed_density
from pipeline.vae.priors.mixtures import FixedMixture, Mixture

AGGREGATE = "aggregate.safetensors"


def save_aggregate(folder: Path, mixture: Mixture | None) -> None:
    """Write aggregate.safetensors into an existing folder; None leaves a file without components."""
    stored = mixture or Mixture(torch.empty(0), torch.empty(0, 0), torch.empty(0, 0))
    tensors = {name: value.detach().cpu().contiguous() for name, value in stored._asdict().items()}
    (folder / AGGREGATE).write_bytes(save(tensors))


def load_aggregate(folder: Path, latent_dim: int, classes: int = 0) -> FixedMixture | MixturePerClass | None:
    """The density that evaluate fitted; None where it fitted none.

    Args:
        folder: where evaluate wrote it.
        latent_dim: the model's.
        classes: that have a mixture each; 0 where there is one for all.

    Raises:
        UserError: the file is missing, damaged, or of another latent dimension or number of classes.
        OSError: the system refuses to read it, and is told of with its path.
    """
    path = folder / AGGREGATE
    try:
        with open(path, "rb"):  # of whatever it may not read, safetensors says that it is not there
            tensors = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected what evaluate wrote") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not readable as safetensors ({error})") from None
    if set(tensors) != set(Mixture._fields):
        raise UserError(f"{path}: holds {', '.join(sorted(tensors))}; expected {', '.join(sorted(Mixture._fields))}")
    mixture = Mixture(**tensors)
    if not mixture.log_weights.numel():
        return None
    weights = (*([classes] if classes else []), mixture.log_weights.shape[-1])
    for name, expected in zip(Mixture._fields, (weights, (*weights, latent_dim), (*weights, latent_dim)), strict=True):
        if tuple(tensors[name].shape) != expected:
            raise UserError(f"{path}: {name} has shape {list(tensors[name].shape)}; expected {list(expected)}")
    return fixed_density(mixture)
