"""A training in a process that may take 128 MB of memory of its own."""

from pathlib import Path

import torch
from small_training import PROCESSES, make_trainer

from pipeline.dataset.batches import mapped_images
from pipeline.dataset.store import open_prepared
from pipeline.training.feed import Feed
from pipeline.training.ranks import Ranks


def train_in_128_megabytes(folder):
    """Some steps and a validation on a prepared folder; the exit code of the process."""
    process = PROCESSES.Process(target=_train, args=(folder,))
    process.start()
    process.join()
    return process.exitcode


def _train(folder):
    import resource

    trainer = make_trainer()
    status = Path("/proc/self/status").read_text().splitlines()
    [taken] = [int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:")]
    resource.setrlimit(resource.RLIMIT_DATA, (taken + 2**27, taken + 2**27))
    data = open_prepared(folder)
    train, val = (mapped_images(split.images) for split in (data.train, data.val))
    trainer.feed = Feed(train, val, trainer.params, 4, torch.device("cpu"), Ranks())
    for step, _ in enumerate(trainer.steps()):
        if step == 8:
            break
    trainer.validate()
