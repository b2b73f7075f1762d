"""A small classifier of the data's own classes: its features tell sets of images apart, its answers what a sample is.

Trained by the evaluate stage on the training split, in seconds, the same on every run of one machine.
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.quality.inputs import in_batches, small_input

FEATURES = 64
_BATCH = 128
_EPOCHS, _FEWEST_STEPS, _MOST_STEPS = 12, 200, 1500
_LEARNING_RATE = 3e-3
_SHIFT = 1 / 14  # of the image's side, to either side: two pixels of 28


class Classifier(nn.Module):
    """Three strided convolutions and a dense layer: images uint8 [n, C, H, W] to one of `classes`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((channels, 16), (16, 32), (32, FEATURES)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.body = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * FEATURES, FEATURES), nn.ReLU()
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of images as `small_input` gives them."""
        logits: Tensor = self.head(self._read(x))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees of uint8 images, float32 [n, 64]."""
        return in_batches(lambda batch: self._read(small_input(batch)), images)

    def classify(self, images: Tensor) -> Tensor:
        """The class of each of uint8 images, int64 [n]."""
        return in_batches(lambda batch: self(small_input(batch)).argmax(1), images)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of uint8 images whose class is the given one, int64 [n]."""
        return (self.classify(images) == labels).double().mean().item()

    def _read(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
        return features


def train_classifier(images: Tensor, labels: Tensor, classes: int, seed: int) -> Classifier:
    """Train on uint8 images [n, C, H, W] and their classes, int64 [n], for 12 epochs, within 200 and 1,500 steps."""
    generator = Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(images.shape[1], classes)
    classifier.to(memory_format=torch.channels_last)  # on a CPU, nearly twice as fast
    steps = min(_MOST_STEPS, max(_FEWEST_STEPS, _EPOCHS * len(images) // _BATCH))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps + 1)
    for _ in range(steps):
        chosen = torch.randint(len(images), (_BATCH,), generator=generator)
        loss = cross_entropy(classifier(_shifted(small_input(images[chosen]), generator)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return classifier.eval()


def _shifted(x: Tensor, generator: Generator) -> Tensor:
    """A batch moved a little down and right, or up and left; what leaves on one side comes back on the other."""
    most = [int(side * _SHIFT) for side in x.shape[2:]]
    moves = [int(torch.randint(-side, side + 1, (), generator=generator)) for side in most]
    return x.roll(moves, (2, 3))
