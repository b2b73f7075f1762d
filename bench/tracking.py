"""What tracking costs: the default training with and without an MLflow run, interleaved in one process.

    python bench/tracking.py data/prepared [--epochs 40] [--rounds 3]

Both sides train the same epochs from the same seed. The tracked side includes opening the run in an existing sqlite
store, every logged epoch, the sampling of system metrics, and the final flush.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from pipeline.dataset.batches import mapped_images
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.params import Params, flatten, load_params
from pipeline.tracking.training import training_run
from pipeline.train import build_model
from pipeline.training.fit import Fit
from pipeline.training.trainer import Trainer


def untracked(params: Params, data: PreparedData) -> float:
    start = time.perf_counter()
    Fit(_trainer(params, data)).run()
    return time.perf_counter() - start


def tracked(params: Params, data: PreparedData) -> tuple[float, float]:
    """Seconds of the whole, and of those the seconds that the training waited for tracking."""
    start, training = time.perf_counter(), 0.0
    with training_run(flatten(params.train, "train"), {}) as run:
        calls: list[float] = []

        def on_epoch(_epoch: int, metrics: dict[str, float]) -> None:
            before = time.perf_counter()
            run.log_epoch(metrics)
            calls.append(time.perf_counter() - before)

        opened = time.perf_counter()
        Fit(_trainer(params, data), on_epoch=on_epoch).run()
        training = time.perf_counter() - opened - sum(calls)
    whole = time.perf_counter() - start
    return whole, whole - training


def _trainer(params: Params, data: PreparedData) -> Trainer:
    train, val = (mapped_images(split.images) for split in (data.train, data.val))
    return Trainer(build_model(params.model, data.image_shape, 0), train, val, params.train, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    params = load_params()
    params = params.model_copy(update={"train": params.train.model_copy(update={"epochs": arguments.epochs})})
    data = open_prepared(arguments.prepared)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        start = time.perf_counter()
        with training_run({}, {}):
            pass  # the store's tables are made once, not in every run
        opened = time.perf_counter() - start
        pairs = [(untracked(params, data), tracked(params, data)) for _ in range(arguments.rounds)]
    for plain, (logged, waited) in pairs:
        share = 100 * waited / (logged - waited)
        print(
            f"untracked {plain:6.2f} s   tracked {logged:6.2f} s   waited for tracking {waited:5.2f} s, {share:.1f} %"
        )
    median = statistics.median(logged / plain for plain, (logged, _) in pairs)
    print(f"median overhead {100 * (median - 1):+.1f} % over {arguments.epochs} epochs of the default run")
    print(f"once: {opened:.1f} s to make the tables of a new sqlite store")


if __name__ == "__main__":
    main()
