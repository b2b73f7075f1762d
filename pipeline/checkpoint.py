"""The saved model: model.safetensors and config.json. Written by train, read by evaluate and export."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.objectives import OBJECTIVES

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
HISTORY = "history.csv"

BINARIZE = ("none", "static", "dynamic")


@dataclass(frozen=True)
class Checkpoint:
    """A trained model in evaluation mode; `objective` and `binarize` as in params.yaml's `train` section."""

    model: VAE
    objective: str
    binarize: str


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the weights and config.json into an existing folder."""
    weights = {name: value.detach().cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(weights))
    content = {
        "model": dataclasses.asdict(checkpoint.model.config),
        "objective": checkpoint.objective,
        "binarize": checkpoint.binarize,
    }
    write_json(folder / CONFIG, content)


def load_checkpoint(folder: Path | str) -> Checkpoint:
    """Rebuild the model on the CPU.

    Raises:
        UserError: a file is missing or damaged, or the weights do not fit the config or are not finite.
        OSError: the system refuses to read a file, which it names.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    content = _field(config, "model", folder)
    try:
        model = VAE(VAEConfig.from_json(content))
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None
    weights = _read_weights(folder / WEIGHTS)
    _check_fit(weights, model.state_dict(), folder / WEIGHTS)
    model.load_state_dict(weights)
    return Checkpoint(
        model.eval(), _choice(config, "objective", OBJECTIVES, folder), _choice(config, "binarize", BINARIZE, folder)
    )


def _choice(config: dict[str, Any], name: str, known: tuple[str, ...], folder: Path) -> str:
    value = _field(config, name, folder)
    if value not in known:
        raise UserError(f"{folder / CONFIG}: {name} is {value!r}; expected one of {', '.join(known)}")
    return str(value)


def _field(config: dict[str, Any], name: str, folder: Path) -> Any:
    if name not in config:
        raise UserError(f"{folder / CONFIG}: {name} is missing; expected a file that train wrote")
    return config[name]


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb"):  # of whatever it may not read, safetensors says that it is not there
            return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected weights that train wrote") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not readable as safetensors ({error})") from None


def _check_fit(found: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Hold that the weights are those of the model, and numbers: what is not finite would be noticed at a later place.

    Raises:
        UserError: they are not.
    """
    for name in sorted(found.keys() | expected.keys()):
        if name not in found or name not in expected:
            state = "missing" if name not in found else "not part of the model"
            raise UserError(f"{path}: {name} is {state}; expected the weights that {CONFIG} describes")
        if found[name].shape != expected[name].shape:
            shapes = (list(found[name].shape), list(expected[name].shape))
            raise UserError(f"{path}: {name} has shape {shapes[0]}; expected {shapes[1]} by {CONFIG}")
        if not (finite := found[name].isfinite()).all():
            value = found[name][~finite][0].item()
            raise UserError(f"{path}: {name} holds {value}; expected finite numbers: train again")
