"""pythae's own trainer on its own VAE, with the networks of the others; run by an interpreter that has pythae."""

import tempfile

import numpy as np
import torch
from measure import test_elbo
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn
from torch.nn import functional
from turns import SETTINGS, Turns


class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)

    def forward(self, x):
        h = functional.relu(self.fc1(x.flatten(1)))
        return ModelOutput(embedding=self.fc21(h), log_covariance=self.fc22(h))


class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

    def logits(self, z: Tensor) -> Tensor:
        return self.fc4(functional.relu(self.fc3(z)))

    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(self.logits(z)).view(-1, 1, 28, 28))


class Waiting(TrainingCallback):
    """Tells `turns` of each step and epoch."""

    def __init__(self, model: VAE, turns: Turns) -> None:
        self.model, self.turns = model, turns

    def on_train_step_end(self, training_config, **_):
        self.turns.step(training_config.per_device_train_batch_size)

    def on_epoch_end(self, *_, **__):
        self.turns.end_epoch(
            lambda: {"elbo": test_elbo(SETTINGS["test"], "mlp", self._encode, self.model.decoder.logits)}
        )

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model.encoder(x)
        return output.embedding, output.log_covariance


def main():
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(SETTINGS["train"])).float() / 255
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder())
    with tempfile.TemporaryDirectory() as folder:
        trainer = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=SETTINGS["epochs"],
            per_device_train_batch_size=SETTINGS["batch"],
            learning_rate=SETTINGS["learning_rate"],
            optimizer_cls="Adam",
            seed=0,
        )
        turns = Turns(precision="fp32", weights=sum(value.numel() for value in model.parameters()))
        TrainingPipeline(model=model, training_config=trainer)(images, callbacks=[Waiting(model, turns)])


if __name__ == "__main__":
    main()
