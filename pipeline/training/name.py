"""What a training is called by: where its states are looked for, and so which of them it may go on from."""

import hashlib
import json
from pathlib import Path

import torch

from pipeline.device import choose_device
from pipeline.files import sha256_of_files
from pipeline.params import Params
from pipeline.params.document import RUNNING
from pipeline.training.precision import choose_precision

PACKAGE = Path(__file__).parents[1]
CODE = (
    "train.py",
    "checkpoint.py",
    "record.py",
    "optimizers.py",
    "compiler.py",
    "device.py",
    "params/*.py",
    "training/*.py",
    "vae/**/*.py",
    "dataset/*.py",
)
"""What shapes the weights, or what is kept of them: held by tests/test_architecture.py to be all that train reaches,
but for errors, files, the store of runs, and how long threads wait."""


def training_name(params: Params, data_sha256: str) -> str:
    """A hash of all that shapes the weights: params, data, this code, torch, and the precision of this processor.

    Of the params, those of another stage and RUNNING are left out: a training goes on when they have changed.
    """
    device = choose_device(params.train.device)
    code = sha256_of_files(path for pattern in CODE for path in sorted(PACKAGE.glob(pattern)))
    values = {"model": params.model.model_dump(mode="json")}
    values["train"] = params.train.model_dump(mode="json", exclude=set(RUNNING))
    shaping = json.dumps(values, sort_keys=True)
    parts = (shaping, data_sha256, code, torch.__version__, choose_precision(params.train.precision, device))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
