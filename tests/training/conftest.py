import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.params import load_params
from pipeline.training.trainer import Trainer
from pipeline.vae.model import VAE, VAEConfig

CONFIG = VAEConfig((1, 8, 8), "mlp", (32,), "relu", 4, "bernoulli", "learned")
DIGITS = torch.from_numpy((load_digits().images * 255 / 16).astype("uint8"))[:, None]
PARAMS = load_params().train.model_copy(
    update={"epochs": 3, "global_batch_size": 64, "warmup_epochs": 0, "device": "cpu", "precision": "fp32"}
)


@pytest.fixture
def make_trainer():
    """A trainer of a small model on 600 real digits, with changes such as epochs=8."""

    def make(config=CONFIG, device="cpu", **changes):
        params = PARAMS.model_copy(update=changes)
        torch.manual_seed(params.seed)
        return Trainer(VAE(config), DIGITS[:600], DIGITS[600:800], params, torch.device(device))

    return make
