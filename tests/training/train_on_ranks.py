"""One rank of a small training: python train_on_ranks.py FOLDER EPOCHS [STEP_AT_WHICH_RANK_1_DIES]."""

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from small_training import CONFIG, DIGITS, PARAMS

from pipeline.errors import run_stage
from pipeline.training.fit import Fit
from pipeline.training.ranks import joined_ranks
from pipeline.training.scratch import Scratch, State
from pipeline.training.trainer import Trainer
from pipeline.vae.model import VAE


def main(folder, epochs, dies_at=None):
    torch.set_num_threads(1)
    params = PARAMS.model_copy(update={"epochs": int(epochs), "schedule": "constant", "checkpoint_minutes": 1e-9})
    with joined_ranks("cpu") as ranks:
        torch.manual_seed(0)
        trainer = Trainer(VAE(CONFIG), DIGITS[:600], DIGITS[600:800], params, torch.device("cpu"), ranks)
        scratch = Scratch(Path(folder), "training") if ranks.is_first else None
        found = scratch.load() if scratch else None
        content = ranks.copy_bytes_from_first(found.to_bytes() if found else None)
        steps = 0

        def on_step(_):
            nonlocal steps
            steps += 1
            if dies_at and ranks.rank == 1 and steps == int(dies_at):
                os.kill(os.getpid(), signal.SIGKILL)

        fit = Fit(trainer, scratch, on_step=on_step)
        if content is not None:
            fit.resume(State.from_bytes(content))
        _, history = fit.run()
        elbos = torch.tensor([[row["train/elbo"], row["val/elbo"]] for row in history.rows], dtype=torch.float64)
        weights = {"weights": trainer.flat.weights.data, "elbos": elbos}
        save_file(weights, Path(folder) / f"{ranks.rank}of{ranks.world_size}.safetensors")


if __name__ == "__main__":
    run_stage(lambda: main(*sys.argv[1:]))
