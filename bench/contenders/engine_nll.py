"""The importance bound of this engine, as `evaluate` computes it."""

import numpy as np
import torch
from turns import SETTINGS, Turns

from pipeline.compiler import compiled
from pipeline.device import choose_device
from pipeline.metrics.likelihood import encode_split, estimate
from pipeline.vae.bounds import importance_samples
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.networks import Standardize


def model_of(weights):
    """Pixels enter as they are, as in pythae."""
    model = VAE(VAEConfig.from_json(SETTINGS["config"])).eval()
    layers = {
        "encoder.hidden": model.encoder[2],
        "encoder.head": model.encoder[-1],
        "decoder.hidden": model.decoder[0],
        "decoder.logits": model.decoder[2],
    }
    for name, layer in layers.items():
        layer.load_state_dict({kind: torch.from_numpy(weights[f"{name}.{kind}"]) for kind in ("weight", "bias")})
    assert isinstance(model.encoder[1], Standardize)  # noqa: S101
    model.encoder[1] = torch.nn.Identity()
    return model


def main():
    torch.manual_seed(0)
    pixels = torch.from_numpy(np.load(SETTINGS["test"])) * 255
    model = model_of(np.load(SETTINGS["weights"])).to(choose_device("auto"))
    given = encode_split(model, pixels, "none", 0)
    turns = Turns()
    weigh = compiled(importance_samples, given.mu.device, required=True) if SETTINGS["compiled"] else importance_samples
    found = estimate(model, given, SETTINGS["samples"], 0, SETTINGS["batch"], turns.step, weigh)
    turns.end_epoch(lambda: {"nll": -found.iw_bound.mean().item()})


if __name__ == "__main__":
    main()
