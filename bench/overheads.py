"""What a training waits for besides its steps: tracking, validation, checkpoints; the default run, in one process.

    python bench/overheads.py data/prepared [--epochs 100] [--checkpoint-seconds 2]

Tracking is what the training waits for MLflow: opening the run in an existing sqlite store, every logged epoch, the
final flush, and the artifacts. Checkpoints come more often than by default, so that there are some
to time; the default run of half a minute writes none at all.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline.dataset.batches import mapped_images
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.params import Params, flatten, load_params
from pipeline.record import Record
from pipeline.tracking.training import training_run
from pipeline.train import build_model, save
from pipeline.training.fit import Fit
from pipeline.training.scratch import Scratch
from pipeline.training.trainer import Trainer


class Waits:
    """Seconds that were spent in some calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds.setdefault(name, []).append(time.perf_counter() - start)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with self.during(name):
                return function(*arguments)

        return call

    def total(self, name: str) -> float:
        return sum(self.seconds.get(name, ()))


def train(params: Params, data: PreparedData, folder: Path) -> tuple[float, Waits]:
    """Seconds of a whole training, and what it waited for."""
    waits, start = Waits(), time.perf_counter()
    train, val = (mapped_images(split.images) for split in (data.train, data.val))
    trainer = Trainer(build_model(params.model, data, 0), train, val, params.train, torch.device("cpu"))
    trainer.validate = waits.timed("validation", trainer.validate)  # type: ignore[method-assign]
    opening = training_run(flatten(params.train, "train"), {})
    with waits.during("tracking"):
        run = opening.__enter__()
    with Scratch(folder, "overheads") as scratch:
        scratch.save = waits.timed("checkpoints", scratch.save)  # type: ignore[method-assign]
        log = waits.timed("tracking", run.log_epoch)
        best, history = Fit(trainer, scratch, on_epoch=lambda _epoch, metrics: log(metrics)).run()
    model = build_model(params.model, data, 0)
    model.load_state_dict(best)
    record = Record("train", run.id, flatten(params.train, "train"), metrics={"best_epoch": history.best_epoch})
    whole = save(folder / "checkpoint", params, model, history, record)
    with waits.during("tracking"):
        run.finish(whole)
        opening.__exit__(None, None, None)
    return time.perf_counter() - start, waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--checkpoint-seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)  # as the train stage does
    params = load_params()
    default = params.train.checkpoint_minutes
    changes = {
        "checkpoint_minutes": arguments.checkpoint_seconds / 60,
        "epochs": arguments.epochs or params.train.epochs,
    }
    params = params.model_copy(update={"train": params.train.model_copy(update=changes)})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        start = time.perf_counter()
        with training_run({}, {}):
            pass  # the store's tables are made once, not in every run
        opened = time.perf_counter() - start
        whole, waits = train(params, open_prepared(arguments.prepared), Path(folder))
    print(f"{whole:.2f} s in all, {params.train.epochs} epochs, {torch.get_num_threads()} threads")
    for name in ("tracking", "validation"):
        print(f"{name:12}{waits.total(name):6.2f} s, {waits.total(name) / whole:.1%} of the training")
    saves = waits.seconds.get("checkpoints", [0.0])
    each = sum(saves) / len(saves)
    print(
        f"checkpoints {1000 * each:6.1f} ms each, {len(saves)} of them; {each / (60 * default):.3%} of a training that"
        f" writes one every {default:g} minutes, {sum(saves) / whole:.1%} of this one"
    )
    print(f"once: {opened:.1f} s to make the tables of a new sqlite store")


if __name__ == "__main__":
    main()
