"""pythae's own `get_nll` on its own networks, with given weights; run by an interpreter that has pythae."""

import numpy as np
import torch
from pythae.models import VAE, VAEConfig
from turns import SETTINGS, Turns

LAYERS = {
    "encoder.layers.0.0": "encoder.hidden",
    "decoder.layers.0.0": "decoder.hidden",
    "decoder.layers.1.0": "decoder.logits",
}


def model_of(weights):
    """Its default networks are 784-512-20 and back, ReLU; mu and log-variance are heads of their own."""
    vae = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")).eval()
    state = {}
    for kind in ("weight", "bias"):
        state |= {f"{theirs}.{kind}": weights[f"{ours}.{kind}"] for theirs, ours in LAYERS.items()}
        mu, logvar = np.split(weights[f"encoder.head.{kind}"], 2)
        state |= {f"encoder.embedding.{kind}": mu, f"encoder.log_var.{kind}": logvar}
    vae.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return vae


@torch.no_grad()  # get_nll itself builds a graph: this is the kinder way to call it
def main():
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.from_numpy(np.load(SETTINGS["test"])).float().to(device)
    model = model_of(np.load(SETTINGS["weights"])).to(device)
    found, turns = [], Turns()
    for image in images:
        found.append(-model.get_nll(image[None], SETTINGS["samples"], SETTINGS["batch"]))
        turns.step(1)
    turns.end_epoch(lambda: {"nll": float(np.mean(found))})


if __name__ == "__main__":
    main()
