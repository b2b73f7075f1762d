"""The loop of most tutorials: a DataLoader over PIL images, ToTensor for each, `loss.item()` at each step."""

import numpy as np
import torch
from measure import SIGMA, test_elbo
from PIL import Image
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from turns import SETTINGS, Turns


class Images(Dataset):
    """As torchvision's MNIST and CIFAR10: each image becomes a PIL image, and what `transform` makes of that."""

    def __init__(self, file, transform):
        self.data, self.transform = np.load(file), transform

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.data[index].transpose(1, 2, 0).squeeze()))


class VAE(nn.Module):
    """784-400-20-400-784."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = functional.relu(self.fc1(x.flatten(1)))
        return self.fc21(h), self.fc22(h)

    def logits(self, z: Tensor) -> Tensor:
        return self.fc4(functional.relu(self.fc3(z)))

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(z))

    def forward(self, x):
        mu, logvar = self.encode(x)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.decode(z), mu, logvar


class ConvVAE(VAE):
    """The networks of `model.network: conv` with hidden [32, 64] and 32 latents, for 32x32x3 images."""

    def __init__(self):
        nn.Module.__init__(self)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.mu, self.logvar, self.first = nn.Linear(4096, 32), nn.Linear(4096, 32), nn.Linear(32, 4096)
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(64, 32, 3, 1, 1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(32, 3, 3, 1, 1),
        )

    def encode(self, x):
        h = self.encoder(x)
        return self.mu(h), self.logvar(h)

    def decode(self, z):
        return self.decoder(functional.relu(self.first(z)).view(-1, 64, 8, 8))

    logits = decode


def loss_function(recon_x, x, mu, logvar):
    if SETTINGS["network"] == "mlp":
        error = functional.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")
    else:
        error = functional.mse_loss(recon_x, x, reduction="sum") / (2 * SIGMA**2)
    return (error - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())) / len(x)


def main():
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = (VAE if SETTINGS["network"] == "mlp" else ConvVAE)().to(device)
    optimizer = optim.Adam(model.parameters(), lr=SETTINGS["learning_rate"])
    data = Images(SETTINGS["train"], transforms.ToTensor())
    loader = DataLoader(data, SETTINGS["batch"], shuffle=True, num_workers=SETTINGS.get("workers", 0))
    turns = Turns(precision="fp32", weights=sum(value.numel() for value in model.parameters()))
    for _ in range(SETTINGS["epochs"]):
        total = 0.0
        for x in loader:
            x = x.to(device)
            optimizer.zero_grad()
            recon_x, mu, logvar = model(x)
            loss = loss_function(recon_x, x, mu, logvar)
            loss.backward()
            total += loss.item()
            optimizer.step()
            turns.step(len(x))
        turns.end_epoch(lambda: {"elbo": test_elbo(SETTINGS["test"], SETTINGS["network"], model.encode, model.logits)})


if __name__ == "__main__":
    main()
