"""The aggregate density: a Gaussian mixture fitted to the training codes, for sampling only.

Written by evaluate as aggregate.safetensors, read by export. A file without components says that none was fitted.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pipeline.errors import UserError
from pipeline.vae.priors import FixedMixture, Mixture

AGGREGATE = "aggregate.safetensors"


def save_aggregate(folder: Path, mixture: Mixture | None) -> None:
    """Write aggregate.safetensors into an existing folder; None leaves a file without components."""
    stored = mixture or Mixture(torch.empty(0), torch.empty(0, 0), torch.empty(0, 0))
    tensors = {name: value.detach().cpu().contiguous() for name, value in stored._asdict().items()}
    (folder / AGGREGATE).write_bytes(save(tensors))


def load_aggregate(folder: Path, latent_dim: int) -> FixedMixture | None:
    """The density that evaluate fitted; None where it fitted none.

    Raises:
        UserError: the file is missing, unreadable, or of another latent dimension.
    """
    path = folder / AGGREGATE
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected what evaluate wrote") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not readable as safetensors ({error})") from None
    if set(tensors) != set(Mixture._fields):
        raise UserError(f"{path}: holds {', '.join(sorted(tensors))}; expected {', '.join(sorted(Mixture._fields))}")
    mixture = Mixture(**tensors)
    if not len(mixture.log_weights):
        return None
    expected = (len(mixture.log_weights), latent_dim)
    if not expected == tuple(mixture.mu.shape) == tuple(mixture.logvar.shape):
        raise UserError(f"{path}: mu has shape {list(mixture.mu.shape)}; expected {list(expected)}")
    return FixedMixture(mixture)
