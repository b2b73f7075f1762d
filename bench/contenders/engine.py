"""This engine, as `dvc repro` runs it, with the optimizer's settings of the others."""

import pipeline.threads  # noqa: F401  # before torch

import numpy as np
import torch
from measure import SIGMA, test_elbo
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from turns import SETTINGS, Turns

from pipeline.device import choose_device
from pipeline.params import load_params
from pipeline.training.fit import Fit
from pipeline.training.flat import named_weights
from pipeline.training.trainer import Trainer
from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.networks import Standardize

VALIDATED = 128  # images: one batch, so that a validation costs nothing here; bench/overheads.py measures it
CONFIGS = {
    "mlp": VAEConfig((1, 28, 28), "mlp", (400,), "relu", 20, "bernoulli", "learned"),
    "conv": VAEConfig((3, 32, 32), "conv", (32, 64), "relu", 32, "gaussian", SIGMA),
}


def published(config: VAEConfig) -> VAE:
    """The model as the others have it: pixels enter in [0, 1] as they are, not standardised."""
    model = VAE(config)
    for index, layer in enumerate(model.encoder):
        if isinstance(layer, Standardize):
            model.encoder[index] = nn.Identity()
    return model


def operations(config: VAEConfig) -> float:
    """Floating-point operations of the products and convolutions of a step, forward and backward, for an image."""
    batch = 16
    model, x = published(config), torch.zeros(batch, *config.image_shape)
    with FlopCounterMode(display=False) as counter:
        elbo(model, x, torch.zeros(batch, config.latent_dim)).elbo.sum().backward()
    return counter.get_total_flops() / batch


def make_trainer() -> Trainer:
    torch.set_flush_denormal(True)  # as the train stage does
    torch.manual_seed(0)
    train, test = (torch.from_numpy(np.load(SETTINGS[name])) for name in ("train", "test"))
    params = load_params().train.model_copy(
        update={
            "global_batch_size": SETTINGS["batch"],
            "epochs": SETTINGS["epochs"],
            "learning_rate": SETTINGS["learning_rate"],
            "schedule": "constant",
            "warmup_epochs": 0,
            "binarize": "none",
            **SETTINGS["params"],
        }
    )
    return Trainer(published(CONFIGS[SETTINGS["network"]]), train, test[:VALIDATED], params, choose_device("auto"))


def main() -> None:
    trainer = make_trainer()
    config = trainer.model.config
    turns = Turns(precision=trainer.precision, operations=operations(config), weights=trainer.flat.weights.numel())

    def measured(weights: Tensor) -> float:
        model = published(config)
        model.load_state_dict(named_weights(model, weights))
        model.to(trainer.device)
        return test_elbo(SETTINGS["test"], SETTINGS["network"], model.encode, model.decode)

    def on_epoch(_epoch: int, _metrics: dict[str, float]) -> None:
        turns.end_epoch(
            lambda: {"elbo": measured(trainer.flat.weights.data), "averaged": measured(trainer.average.weights)}
        )

    Fit(trainer, on_step=turns.step, on_epoch=on_epoch).run()


if __name__ == "__main__":
    main()
