"""A small model on 600 real digits, and its training in a process of its own that may be killed."""

import importlib.util
import math
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import torch

from pipeline.params import load_params
from pipeline.training import scratch as scratch_module
from pipeline.training.feed import Feed
from pipeline.training.fit import Fit
from pipeline.training.scratch import Scratch, State
from pipeline.training.trainer import Trainer
from pipeline.vae.model import VAE, VAEConfig

ROOT = Path(__file__).parents[2]
CONFIG = VAEConfig((1, 8, 8), "mlp", (32,), "relu", 4, "bernoulli", "learned")
# By their file, since to import scikit-learn takes each rank as long as to train.
_ROWS = np.loadtxt(
    Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=","
)
DIGITS = torch.from_numpy((_ROWS[:, :-1].reshape(-1, 1, 8, 8) * 255 / 16).astype("uint8"))
PARAMS = load_params(ROOT / "params.yaml").train.model_copy(
    update={"epochs": 3, "global_batch_size": 64, "warmup_epochs": 0, "device": "cpu", "precision": "fp32"}
)

# A fork of a process in which autograd has started threads cannot train; one of the fork server can.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pipeline.training.fit", "pytest"])


def make_trainer(config=CONFIG, device="cpu", **changes):
    """At its first step; with changes of the params such as epochs=8."""
    params = PARAMS.model_copy(update=changes)
    torch.manual_seed(params.seed)
    return Trainer(VAE(config), DIGITS[:600], DIGITS[600:800], params, torch.device(device))


def train(trainer, folder, wish=None):
    """One process' life: go on from what is there, and say what came of it."""
    with Scratch(folder, "training") as scratch:
        fit = Fit(trainer, scratch, wish=wish)
        found = scratch.load()
        if found is not None:
            fit.resume(found)
        return digest(*fit.run())


def digest(best, history):
    weights = torch.cat([value.flatten() for value in best.values()]).numpy().tobytes()
    rows = [{name: value for name, value in row.items() if name != "images_per_second"} for row in history.rows]
    return weights, rows, history.best_epoch, history.kept_epoch


def poison(example, when=lambda epoch: True):
    """Make the training noise of one example NaN, for good, in the epochs and for as long as `when` says."""
    ready = Feed._ready

    def poisoned(self, images, examples, split, *epoch):
        x, eps = ready(self, images, examples, split, *epoch)
        if epoch and when(*epoch):
            eps = torch.where((examples == example)[:, None], math.nan, eps)
        return x, eps

    Feed._ready = poisoned


class Kept:
    """In the place of a scratch folder: every state, as it would be read back."""

    def __init__(self):
        self.states = []

    def save(self, state):
        self.states.append(State.from_bytes(state.to_bytes()))
        return True


class Child:
    """A process that trains in `folder`; it exists once it begins to."""

    def __init__(self, target, folder, changes, *arguments):
        began, begins = PROCESSES.Pipe(duplex=False)
        self._process = PROCESSES.Process(target=target, args=(begins, folder, changes, *arguments))
        self._process.start()
        begins.close()
        began.recv()

    def kill(self):
        self._process.kill()

    def is_alive(self):
        return self._process.is_alive()

    def end(self):
        """Wait for its end; the exit code."""
        self._process.join()
        return self._process.exitcode


def train_in_child(begins, folder, changes):
    trainer = make_trainer(**changes)
    begins.send(True)
    train(trainer, folder)


def train_and_die(begins, folder, changes, write, moment):
    """Be killed in the given write of a state: `half` way, or before it is renamed."""
    count, whole = 0, scratch_module._write

    def dying(path, content):
        nonlocal count
        count += 1
        if count < write:
            whole(path, content)
            return
        whole(path, content[: len(content) // 2] if moment == "half" else content)
        os.kill(os.getpid(), signal.SIGKILL)

    scratch_module._write = dying
    train_in_child(begins, folder, changes)
