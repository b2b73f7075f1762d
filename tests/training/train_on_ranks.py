"""One rank of a small training: python train_on_ranks.py FOLDER OPTIONS, which are JSON.

`config` and `params` are changes of a small training's, `val` its number of validation images; `dies` is [rank, step]
of one that is killed then, and `raises` of one that raises; with `hangs`, leaving the group ends the process with 99,
where NCCL would wait for the others; `poison` is [example, epoch] of a NaN that is met until the training has gone
back; with `waits`, rank 0 lets the others wait so many times, and nothing is trained.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from small_training import CONFIG, DIGITS, PARAMS, poison

from pipeline.errors import SharedError, run_stage
from pipeline.training.fit import Fit
from pipeline.training.ranks import joined_ranks
from pipeline.training.scratch import Scratch, State
from pipeline.training.trainer import Trainer
from pipeline.vae.model import VAE


def main(folder, options):
    torch.set_num_threads(1)
    if "hangs" in options:
        torch.distributed.destroy_process_group = lambda: os._exit(99)
    with joined_ranks("cpu") as ranks:
        if "waits" in options:
            wait(folder, ranks, options["waits"])
        else:
            train(folder, ranks, options)


def wait(folder, ranks, times):
    """Rank 0 lets the others wait and then tells them of something."""
    for _ in range(times if ranks.is_first else 0):
        ranks.ask_to_wait()
    content = ranks.copy_bytes_from_first(b"at last" if ranks.is_first else None)
    (folder / f"{ranks.rank}of{ranks.world_size}.txt").write_bytes(content)


def train(folder, ranks, options):
    params = PARAMS.model_copy(update={"schedule": "constant", "checkpoint_minutes": 1e-9, **options.get("params", {})})
    torch.manual_seed(0)
    model = VAE(dataclasses.replace(CONFIG, **options.get("config", {})))
    trainer = Trainer(
        model, DIGITS[:600], DIGITS[600 : 600 + options.get("val", 200)], params, torch.device("cpu"), ranks
    )
    scratch = Scratch(folder, "training") if ranks.is_first else None
    found = scratch.load() if scratch else None
    content = ranks.copy_bytes_from_first(found.to_bytes() if found else None)
    steps = 0

    def on_step(_):
        nonlocal steps
        steps += 1
        if options.get("dies") == [ranks.rank, steps]:
            os.kill(os.getpid(), signal.SIGKILL)
        if options.get("raises") == [ranks.rank, steps]:
            raise RuntimeError("out of luck")

    fit = Fit(trainer, scratch, on_step=on_step)
    if content is not None:
        fit.resume(State.from_bytes(content))
    if "poison" in options:
        example, poisoned = options["poison"]
        poison(example, when=lambda epoch: epoch == poisoned and not fit.history.returns)
    try:
        _, history = fit.run()
    except SharedError:
        if ranks.is_first:
            raise
        ranks.leave_last(1)
    elbos = torch.tensor([[row["train/elbo"], row["val/elbo"]] for row in history.rows], dtype=torch.float64)
    kept = {"weights": trainer.flat.weights.data, "elbos": elbos, "returns": torch.tensor(history.returns)}
    save_file(kept, folder / f"{ranks.rank}of{ranks.world_size}.safetensors")


if __name__ == "__main__":
    run_stage(lambda: main(Path(sys.argv[1]), json.loads(sys.argv[2])))
