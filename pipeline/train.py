"""Train a model on the prepared images, and keep the weights of the best epoch.

Reads    the folder that prepare wrote; sections `model` and `train` of params.yaml
Writes   a checkpoint: model.safetensors, config.json, history.csv (a row per epoch), run.json (the MLflow run)
Keeps    the state of a training that is not finished, so that a killed one goes on
Opens    the MLflow run that evaluate and export join

    python -m pipeline.train data/prepared models/checkpoint .training
"""

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path

import torch

from pipeline.checkpoint import HISTORY, Checkpoint, save_checkpoint
from pipeline.dataset.batches import mapped_images, to_unit
from pipeline.dataset.classes import labels_of, trained_classes
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.device import choose_device
from pipeline.errors import Stopped, run_stage
from pipeline.files import atomic_directory, repository_root, sha256_of_files, write_csv
from pipeline.params import ModelParams, Params, flatten, load_params
from pipeline.record import Record, write_record
from pipeline.tracking.provenance import provenance
from pipeline.tracking.training import TrainingRun, training_run
from pipeline.training.abandoned import tidy
from pipeline.training.feed import Labels
from pipeline.training.fit import Fit, History
from pipeline.training.launch import is_launched, launch
from pipeline.training.precision import choose_precision
from pipeline.training.progress import training_progress
from pipeline.training.ranks import Ranks, joined_ranks
from pipeline.training.scratch import Scratch, State
from pipeline.training.signals import stop_wish
from pipeline.training.suitability import check_likelihood
from pipeline.training.trainer import Trainer
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.priors import VampPrior

PACKAGE = Path(__file__).parent
RUNNING = ("checkpoint_minutes", "devices", "nodes")  # of `train`: they change the weights by rounding at most
CODE = ("train.py", "checkpoint.py", "training/*.py", "vae/**/*.py", "dataset/*.py")


_LEVEL = 1 / 255


def build_model(params: ModelParams, data: PreparedData, seed: int, classes: tuple[str, ...] = ()) -> VAE:
    """A model with freshly drawn weights, the same for the same seed, that sees pixels standardised as `data` are.

    `classes` are a conditional model's.

    Raises:
        UserError: the network does not fit the images.
    """
    mean, deviation = (data.meta["values"][name] * _LEVEL for name in ("mean", "standard_deviation"))
    config = VAEConfig(
        image_shape=data.image_shape,
        classes=classes,
        pixel_mean=mean,
        pixel_standard_deviation=max(deviation, _LEVEL),  # images that are all alike have none
        **params.model_dump(),
    )
    torch.manual_seed(seed)
    return VAE(config)


def classes_and_labels(params: ModelParams, data: PreparedData) -> tuple[tuple[str, ...], Labels]:
    """The names of a conditional model's classes and those of the images; none where the model is not conditional.

    Raises:
        UserError: the images have no classes, or training images lack one of them.
    """
    classes = trained_classes(data) if params.condition == "label" else ()
    return classes, Labels(*(labels_of(data, split, classes) for split in Labels._fields))


def train_model(
    params: Params,
    data: PreparedData,
    ranks: Ranks,
    scratch: Scratch | None = None,
    state: State | None = None,
    run: TrainingRun | None = None,
) -> tuple[VAE, History]:
    """Train from `state` or from the start; the model with the best epoch's weights, on the CPU.

    Args:
        params: all of params.yaml.
        data: what prepare wrote.
        ranks: this process among its peers.
        scratch: where the state is kept until the end; for the first rank.
        state: that an earlier process left.
        run: hears every epoch's metrics; for the first rank.

    Raises:
        UserError: the device is not there, the network does not fit, the loss became non-finite, or a conditional
            model has no classes to learn.
        Stopped: by SIGINT or SIGTERM; the state is saved.
    """
    classes, labels = classes_and_labels(params.model, data)
    model = build_model(params.model, data, params.train.seed, classes)
    train, val = (mapped_images(split.images) for split in (data.train, data.val))
    if isinstance(model.prior, VampPrior):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(params.train.seed))
        model.prior.start_from(to_unit(train[order[torch.arange(params.model.prior_components) % len(train)]]))
    device = choose_device(params.train.device, ranks.local_rank)
    trainer = Trainer(model, train, val, params.train, device, ranks, labels)
    with training_progress(params.train.epochs, len(train), shown=ranks.is_first) as progress, stop_wish() as wish:

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            if run is not None:
                run.log_epoch(metrics)
            progress.epoch(epoch, metrics)

        fit = Fit(trainer, scratch, {"run_id": run.id if run else None}, wish, progress.step, on_epoch)
        if state is not None:
            fit.resume(state)
            progress.resume(trainer.position.epoch, trainer.position.step * params.train.global_batch_size)
        best, history = fit.run()
    kept = build_model(params.model, data, params.train.seed, classes)
    kept.load_state_dict(best)
    return kept, history


def save(folder: Path, params: Params, model: VAE, history: History, record: Record) -> None:
    """Write the whole checkpoint folder, or nothing."""
    with atomic_directory(folder) as beside:
        save_checkpoint(beside, Checkpoint(model, params.train.objective, params.train.binarize))
        write_csv(beside / HISTORY, history.rows)
        write_record(beside, record)


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


def main() -> None:
    """Start the ranks that params ask for, unless this is one of them; train."""
    arguments = _arguments()
    # Once pixels that are always black are learned, their gradients are denormal numbers, and arithmetic on those
    # costs a third of the speed. It is set before the first operation, so that torch's threads inherit it.
    torch.set_flush_denormal(True)
    params = load_params()
    if params.train.devices * params.train.nodes > 1 and not is_launched(os.environ):
        launch(["-m", "pipeline.train", *sys.argv[1:]], params.train.devices, params.train.nodes)
        return
    data = open_prepared(arguments.prepared)
    classes_and_labels(params.model, data)  # a mistake is told before any rank waits for another
    with joined_ranks(params.train.device) as ranks:
        if ranks.is_first:
            lead(params, data, ranks, arguments.checkpoint, arguments.scratch)
        else:
            follow(params, data, ranks)


def lead(params: Params, data: PreparedData, ranks: Ranks, folder: Path, scratch_folder: Path) -> None:
    """Train as the one rank that keeps states, tracks the run and writes the checkpoint."""
    if warning := check_likelihood(params, data.meta["values"]):
        print(f"warning: {warning}", file=sys.stderr)
    values = flatten(params.prepare, "prepare") | flatten(params.model, "model") | flatten(params.train, "train")
    tags = provenance(params.digest(), data.sha256)
    with Scratch(repository_root() / scratch_folder, training_name(params, data.sha256)) as scratch:
        tidy(scratch.folder)
        state = state_of_first(ranks, scratch)
        earlier = state.content if state is not None else {"run_id": None, "history": {"rows": []}}
        with training_run(values, tags, earlier["run_id"], earlier["history"]["rows"]) as run:
            model, history = train_model(params, data, ranks, scratch, state, run)
            run.wait()  # a store that was away may be back: the record is to name its run
            record = Record("train", run.id, values, tags, {"best_epoch": history.best_epoch})
            save(folder, params, model, history, record)
            run.finish(dataclasses.replace(record, curves=history.rows, artifacts=sorted(folder.iterdir())))
        scratch.remove()
    name = "recon" if params.train.objective == "autoencoder" else "elbo"
    best = history.rows[history.best_epoch - 1][f"val/{name}"]
    print(
        f"train: best val/{name} {best:.2f} nats at epoch {history.best_epoch} of {len(history.rows)}"
        f" -> {folder} (MLflow run {run.id or 'not in the store yet'})"
    )


def follow(params: Params, data: PreparedData, ranks: Ranks) -> None:
    """Train as another rank: whatever there is to say, the first one says."""
    try:
        train_model(params, data, ranks, state=state_of_first(ranks, None))
    except Stopped as stopped:
        sys.exit(stopped.code)


def state_of_first(ranks: Ranks, scratch: Scratch | None) -> State | None:
    """What rank 0 finds in its scratch folder, on every rank."""
    found = scratch.load() if scratch is not None else None
    content = ranks.copy_bytes_from_first(found.to_bytes() if found is not None else None)
    return State.from_bytes(content) if content is not None else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.train", description=__doc__)
    parser.add_argument("prepared", type=Path, help="folder of the prepare stage")
    parser.add_argument("checkpoint", type=Path, help="folder to write")
    parser.add_argument("scratch", type=Path, help="folder for trainings that are not finished, at the DVC root")
    return parser.parse_args()


if __name__ == "__main__":
    run_stage(main)
