"""Train a model on the prepared images, and keep the weights of the best epoch, or of the last.

Reads    the folder that prepare wrote; sections `model` and `train` of params.yaml
Writes   a checkpoint: model.safetensors, config.json, history.csv (a row per epoch), run.json (the MLflow run)
Keeps    the state of a training that is not finished, so that a killed one goes on, and what a finished one came to
Opens    the MLflow run that evaluate and export join

    python -m pipeline.train data/prepared models/checkpoint .training
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import pipeline.threads  # noqa: F401  # before torch

import numpy as np
import torch
from torch import Tensor

from pipeline.checkpoint import CONFIG, HISTORY, Checkpoint, save_checkpoint
from pipeline.dataset.batches import mapped_images, to_unit
from pipeline.dataset.classes import labels_of, trained_classes
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.device import choose_device, describe_device, memory_bounded_by
from pipeline.errors import SharedError, Stopped, UserError, run_stage
from pipeline.files import atomic_directory, expect_own_folder, repository_root, write_csv
from pipeline.params import PARAMS_FILE, ModelParams, Params, flatten, load_params
from pipeline.record import Record, write_record
from pipeline.tracking.provenance import provenance
from pipeline.tracking.training import TrainingRun, complete_run, training_run
from pipeline.training.abandoned import tidy
from pipeline.training.feed import SplitLabels
from pipeline.training.fit import Fit, History
from pipeline.training.launch import is_launched, launch
from pipeline.training.name import training_name
from pipeline.training.progress import training_progress
from pipeline.training.ranks import Ranks, joined_ranks, ranks_of_environment
from pipeline.training.schedule import check_choice, check_warmup
from pipeline.training.scratch import Scratch, State, has_finished
from pipeline.training.signals import ended_by_sigterm, stop_wish
from pipeline.training.suitability import check_likelihood
from pipeline.training.trainer import Trainer
from pipeline.vae.likelihoods.base import GREY_LEVEL
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.priors.vamp import VampPrior


def build_model(params: ModelParams, data: PreparedData, seed: int, classes: tuple[str, ...] = ()) -> VAE:
    """A model with freshly drawn weights, the same for the same seed, that sees pixels standardised as `data` are.

    `classes` are a conditional model's.

    Raises:
        UserError: the network does not fit the images, or not into memory.
    """
    mean, deviation = (data.meta["values"][name] * GREY_LEVEL for name in ("mean", "standard_deviation"))
    config = VAEConfig(
        image_shape=data.image_shape,
        classes=classes,
        pixel_mean=mean,
        pixel_standard_deviation=max(deviation, GREY_LEVEL),  # images that are all alike have none
        **params.model_dump(),
    )
    torch.manual_seed(seed)
    with memory_bounded_by("model.hidden"):
        try:
            return VAE(config)
        except UserError as error:
            raise UserError(f"{PARAMS_FILE}: {error}") from None


def classes_and_labels(params: ModelParams, data: PreparedData) -> tuple[tuple[str, ...], SplitLabels]:
    """The names of a conditional model's classes and those of the images; none where the model is not conditional.

    Raises:
        UserError: the images have no classes, or training images lack one of them.
    """
    classes = trained_classes(data) if params.condition == "label" else ()
    return classes, SplitLabels(*(labels_of(data, split, classes) for split in SplitLabels._fields))


def check_fit(params: Params, data: PreparedData) -> None:
    """Find what params get wrong of the images before anything is made, and before any rank waits for another.

    Raises:
        UserError: the likelihood does not suit, a conditional model has no classes to learn, or the network does not
            fit.
    """
    check_likelihood(params, data.meta["values"])
    classes, _ = classes_and_labels(params.model, data)
    build_model(params.model, data, params.train.seed, classes)  # the meta device needs seconds to be ready for flows


def some_examples(count: int, wanted: int, seed: int) -> Tensor:
    """Places of `wanted` among `count` images, int64: none twice, unless there are fewer. Needs no list of them all."""
    chosen = np.random.default_rng(seed).choice(count, min(wanted, count), replace=False)
    return torch.from_numpy(chosen[np.arange(wanted) % len(chosen)])


def train_model(
    params: Params,
    data: PreparedData,
    ranks: Ranks,
    scratch: Scratch | None = None,
    state: State | None = None,
    run: TrainingRun | None = None,
) -> tuple[VAE, History]:
    """Train from `state` or from the start; the model with the kept epoch's weights, on the CPU.

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
        chosen = some_examples(len(train), params.model.prior_components, params.train.seed)
        model.prior.start_from(to_unit(train[chosen]), None if labels.train is None else labels.train[chosen])
    device = choose_device(params.train.device, ranks.local_rank)
    trainer = Trainer(model, train, val, params.train, device, ranks, labels)
    if ranks.is_first:
        parameters = sum(weight.numel() for weight in model.parameters())
        steps = trainer.feed.steps_per_epoch
        print(f"train: {parameters:,} parameters, {steps:,} steps an epoch, {describe_device(device)}", flush=True)
    with training_progress(params.train.epochs, len(train), shown=ranks.is_first) as progress, stop_wish() as wish:

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            if run is not None:
                run.log_epoch(metrics)
            progress.epoch(epoch, metrics)

        fit = Fit(trainer, scratch, wish, progress.step, on_epoch, progress.go_back)
        if state is not None:
            fit.resume(state)
            progress.resume(trainer.position.epoch, trainer.position.step * params.train.global_batch_size)
        weights, history = fit.run()
    ranks.part()
    kept = build_model(params.model, data, params.train.seed, classes)
    kept.load_state_dict(weights)
    return kept, history


def save(folder: Path, params: Params, model: VAE, history: History, record: Record) -> Record:
    """Write the whole checkpoint folder, or nothing; the record with all that its run is to hold."""
    with atomic_directory(folder, CONFIG) as beside:
        save_checkpoint(beside, Checkpoint(model, params.train.objective, params.train.binarize))
        write_csv(beside / HISTORY, history.rows)
        write_record(beside, record)
    return dataclasses.replace(record, curves=history.rows, artifacts=sorted(folder.iterdir()))


def main() -> None:
    """Start the ranks that params ask for, unless this is one of them; train."""
    arguments = _arguments()
    with ended_by_sigterm(told=ranks_of_environment(os.environ).is_first):
        start(arguments)


def start(arguments: argparse.Namespace) -> None:
    """As `main`, but for signals."""
    # Once pixels that are always black are learned, their gradients are denormal numbers, and arithmetic on those
    # costs a third of the speed. It is set before the first operation, so that torch's threads inherit it.
    torch.set_flush_denormal(True)
    expect_own_folder(arguments.checkpoint, CONFIG)
    params, data = load_params(), open_prepared(arguments.prepared)
    check_fit(params, data)
    if params.train.devices * params.train.nodes > 1 and not is_launched(os.environ):
        name = training_name(params, data.sha256)
        if not has_finished(repository_root() / arguments.scratch, name):  # to deliver it again takes one process
            launch(["-m", "pipeline.train", *sys.argv[1:]], params.train.devices, params.train.nodes)
            return
    with joined_ranks(params.train.device) as ranks, memory_bounded_by("train.global_batch_size"):
        if ranks.is_first:
            lead(params, data, ranks, arguments.checkpoint, arguments.scratch)
        else:
            follow(params, data, ranks)


def lead(params: Params, data: PreparedData, ranks: Ranks, folder: Path, scratch_folder: Path) -> None:
    """Train as the one rank that keeps states, tracks the run and writes the checkpoint."""
    suits = check_likelihood(params, data.meta["values"])
    for warning in (suits, check_warmup(params.train), check_choice(params.train)):
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr)
    name = shared_name(params, data, ranks)
    with Scratch(repository_root() / scratch_folder, name, on_wait=ranks.ask_to_wait) as scratch:
        tidy(scratch.folder)
        finished = scratch.finished()
        state = state_of_first(ranks, finished or scratch.load())
        if finished is not None:
            history, record = again(params, data, finished, folder)
            print(f"train: trained before, and not again: the weights are those in {scratch.folder} (without it, anew)")
        else:
            history, record = anew(params, data, ranks, scratch, state, folder)
    told = in_words(history, params.train.objective)
    print(f"train: {told} -> {folder} (MLflow run {record.run_id or 'not in the store yet'})")


def in_words(history: History, objective: str) -> str:
    """What the validation images say of the best epoch, and of the last where its weights were kept instead."""
    term = "recon" if objective == "autoencoder" else "elbo"
    best, kept = (history.rows[epoch - 1][f"val/{term}"] for epoch in (history.best_epoch, history.kept_epoch))
    instead = "" if history.kept_epoch == history.best_epoch else f"; kept: the last, {kept:.2f} nats"
    return f"best val/{term} {best:.2f} nats at epoch {history.best_epoch} of {len(history.rows)}{instead}"


def anew(
    params: Params, data: PreparedData, ranks: Ranks, scratch: Scratch, state: State | None, folder: Path
) -> tuple[History, Record]:
    """Train from `state` or from the start, and keep in the scratch folder what came of it before it is delivered."""
    values = flatten(params.prepare, "prepare") | flatten(params.model, "model") | flatten(params.train, "train")
    machine = describe_device(choose_device(params.train.device, ranks.local_rank))
    tags = provenance(params.digest(), data.sha256) | {"machine": machine}
    rows = state.content["history"]["rows"] if state is not None else ()
    with training_run(values, tags, scratch.run_key, rows) as run:
        model, history = train_model(params, data, ranks, scratch, state, run)
        epochs = {"best_epoch": history.best_epoch, "kept_epoch": history.kept_epoch}
        record = Record("train", run.settle(), values, tags, epochs, key=scratch.run_key)
        scratch.finish(finished_state(model, history, record))
        run.finish(save(folder, params, model, history, record))
    return history, record


def again(params: Params, data: PreparedData, finished: State, folder: Path) -> tuple[History, Record]:
    """Write the checkpoint of a training that has ended once more, to the bit, and join no run but its own."""
    model = build_model(params.model, data, params.train.seed, classes_and_labels(params.model, data)[0])
    model.load_state_dict(finished.tensors)
    history, record = History(**finished.content["history"]), Record(**finished.content["record"])
    complete_run(save(folder, params, model, history, record))
    return history, record


def finished_state(model: VAE, history: History, record: Record) -> State:
    """All that `again` needs."""
    content = {"history": dataclasses.asdict(history), "record": record.as_json(), "finished": True}
    return State(model.state_dict(), content)


def follow(params: Params, data: PreparedData, ranks: Ranks) -> None:
    """Train as another rank: whatever there is to say, the first one says."""
    try:
        shared_name(params, data, ranks)
        state = state_of_first(ranks)
        if state is None or "finished" not in state.content:
            train_model(params, data, ranks, state=state)
    except Stopped as stopped:
        ranks.leave_last(stopped.code)
    except SharedError:
        ranks.leave_last(1)


def shared_name(params: Params, data: PreparedData, ranks: Ranks) -> str:
    """What the training of all ranks is called by.

    Raises:
        SharedError: it is not one training on all, or its loss is not one that several can share.
    """
    name = training_name(params, data.sha256)
    ranks.expect_alike(name)
    if ranks.world_size > 1 and params.train.whole_batch is not None:  # params know of the ranks they ask for alone
        raise SharedError(
            f"params.yaml: {params.train.whole_batch}, on {ranks.world_size} ranks; expected one process, or "
            "train.objective: elbo without free bits"
        )
    return name


def state_of_first(ranks: Ranks, found: State | None = None) -> State | None:
    """What rank 0 has `found` in its scratch folder, on every rank."""
    content = ranks.copy_bytes_from_first(found.to_bytes() if found is not None else None)
    return State.from_bytes(content) if content is not None else None


def _arguments() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m pipeline.train", description=__doc__, formatter_class=layout)
    parser.add_argument("prepared", type=Path, help="folder of the prepare stage")
    parser.add_argument("checkpoint", type=Path, help="folder to write")
    parser.add_argument("scratch", type=Path, help="folder for trainings that are not finished, at the DVC root")
    return parser.parse_args()


if __name__ == "__main__":
    run_stage(main)
