"""A training that is killed at any moment goes on, and ends with the very weights that it would have had."""

import dataclasses
import errno
import os
import random
import shutil
import signal
import time
from functools import partial

import pytest
from small_training import CONFIG, Child, Kept, digest, train, train_and_die, train_in_child

from pipeline.errors import Stopped
from pipeline.training import scratch as scratch_module
from pipeline.training.fit import Fit
from pipeline.training.scratch import Scratch
from pipeline.training.signals import StopWish, stop_wish

CHANGES = {"epochs": 4, "global_batch_size": 50, "checkpoint_minutes": 1e-9}  # a checkpoint after every step


@pytest.fixture
def unbroken(make_trainer):
    return digest(*Fit(make_trainer(**CHANGES)).run())


@pytest.mark.parametrize("decay", [0.0, 0.99])
def test_every_state_leads_to_the_same_end(make_trainer, decay):
    changes = CHANGES | {"ema_decay": decay, "max_gradient_norm": 5.0}
    kept = Kept()
    expected = digest(*Fit(make_trainer(**changes), kept).run())
    assert len(kept.states) == 4 * (12 + 1) + 1  # after each step, each epoch, and at the end
    for state in kept.states[::5]:
        fit = Fit(make_trainer(**changes))
        fit.resume(state)
        assert digest(*fit.run()) == expected


GREY = {"binarize": "none"}
VARIANTS = {
    "bf16": ({}, {"precision": "bf16"}),
    "iwae": ({}, {"objective": "iwae", "importance_samples": 3}),
    "wake-sleep": ({}, {"objective": "wake_sleep"}),
    "conv": ({"network": "conv", "hidden": (4,)}, {}),
    "ladder": ({"network": "ladder", "hidden": (16,), "latent_groups": 2}, {}),
    "conv-ladder": (
        {"network": "ladder", "group_network": "conv", "hidden": (4,), "latent_dim": 32, "latent_groups": 2},
        {},
    ),
    "vamp": ({"prior": "vamp", "prior_components": 5}, {}),
    "flows": ({"prior": "flow", "posterior": "iaf", "flow_layers": 2, "flow_hidden": (8,)}, {}),
    "optimal-sigma": ({"likelihood": "gaussian", "sigma": "optimal"}, GREY),
    "sigma-per-pixel": ({"likelihood": "gaussian", "sigma": "per_pixel"}, GREY),
    "logistics": ({"likelihood": "logistic_mixture", "likelihood_components": 2}, GREY),
    "autoencoder": ({}, {"objective": "autoencoder"}),
    "adagrad-map": ({}, {"optimizer": "adagrad", "learning_rate": 0.02, "weight_prior_precision": 1.0}),
}


def assert_every_state_leads_to_the_same_end(make_trainer, config, changes, every=2):
    """Of two epochs of three steps each, in the kind of model that the changes make."""
    trainer = partial(
        make_trainer,
        dataclasses.replace(CONFIG, **config),
        **{"epochs": 2, "global_batch_size": 250, "checkpoint_minutes": 1e-9, "ema_decay": 0.9} | changes,
    )
    kept = Kept()
    expected = digest(*Fit(trainer(), kept).run())
    for state in kept.states[1::every]:
        fit = Fit(trainer())
        fit.resume(state)
        assert digest(*fit.run()) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_model_goes_on_to_the_same_end(make_trainer, variant):
    assert_every_state_leads_to_the_same_end(make_trainer, *VARIANTS[variant])


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler was found")
def test_a_compiled_training_goes_on_to_the_same_end(make_trainer):
    """The last batch of an epoch is smaller and not compiled."""
    assert_every_state_leads_to_the_same_end(make_trainer, {}, {"compile": "always"}, every=4)


def newest_state(folder):
    """The number of the newest state that lies there; 0 where there is none."""
    return max((int(path.stem) for path in (folder / "training").glob("*.safetensors")), default=0)


def test_twenty_kills_at_random_moments_change_nothing(make_trainer, unbroken, tmp_path):
    """Each a while after the process has begun, or has saved its first or second state."""
    chance = random.Random(0)  # noqa: S311
    kills, gone_on = 0, 0
    while kills < 20:
        before, states = newest_state(tmp_path), chance.choice([0, 0, 1, 2])
        child = Child(train_in_child, tmp_path, CHANGES)
        while child.is_alive() and newest_state(tmp_path) < before + states:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.01))
        child.kill()
        code = child.end()
        assert code in (0, -signal.SIGKILL)
        if code == -signal.SIGKILL:
            kills += 1
            gone_on += before > 0
        else:  # it came to its end: begin anew, there are kills left
            (tmp_path / "training" / "lock").unlink(missing_ok=True)
            for state in (tmp_path / "training").glob("*.safetensors"):
                state.unlink()
    assert gone_on >= 10
    assert train(make_trainer(**CHANGES), tmp_path) == unbroken


@pytest.mark.parametrize("write", [1, 2, 9, 30])
@pytest.mark.parametrize("moment", ["half", "before the rename"])
def test_a_kill_in_the_middle_of_a_checkpoint_changes_nothing(make_trainer, unbroken, tmp_path, write, moment):
    assert Child(train_and_die, tmp_path, CHANGES, write, moment).end() == -signal.SIGKILL
    assert len(list((tmp_path / "training").glob(".*.writing"))) == 1
    assert train(make_trainer(**CHANGES), tmp_path) == unbroken


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_next_process_goes_on(make_trainer, unbroken, tmp_path, number):
    seen = []

    with stop_wish() as wish:
        trainer = make_trainer(**CHANGES | {"checkpoint_minutes": 60})
        scratch = Scratch(tmp_path, "training")

        def on_step(examples):
            seen.append(examples)
            if len(seen) == 17:
                signal.raise_signal(number)

        with pytest.raises(Stopped, match=r"saved at epoch 2, step 5; the same command goes on") as stopped, scratch:
            Fit(trainer, scratch, wish=wish, on_step=on_step).run()
    assert stopped.value.code == 128 + number
    assert train(make_trainer(**CHANGES | {"checkpoint_minutes": 60}), tmp_path) == unbroken


def test_a_second_signal_is_what_it_always_was():
    # A shell's background job, and all that it starts, is born deaf to SIGINT.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_wish() as wish:
        signal.raise_signal(signal.SIGINT)
        assert wish.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_early_stopping_counts_on_after_a_kill(make_trainer, keep):
    """Of a learning rate that ruins the model: the epoch that is kept is its best, or its last and not its best."""
    ruined = {"learning_rate": 0.5, "ema_decay": 0.0, "schedule": "constant", "epochs": 50, "early_stopping_epochs": 3}
    changes = CHANGES | ruined | {"keep_epoch": keep}
    states = Kept()
    expected = digest(*Fit(make_trainer(**changes), states).run())
    *_, best, kept = expected
    assert kept == (best if keep == "best" else best + 3)
    for state in states.states[-3 * 13 + 5 :: 13]:  # within each epoch of the patience
        fit = Fit(make_trainer(**changes))
        fit.resume(state)
        assert fit.history.best_epoch == best
        assert fit.history.kept_epoch == (best if keep == "best" else len(fit.history.rows))
        assert digest(*fit.run()) == expected


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(
    make_trainer, unbroken, tmp_path, monkeypatch, capsys
):
    writes, whole = 0, scratch_module._write

    def full_for_a_while(path, content):
        nonlocal writes
        writes += 1
        if 5 <= writes <= 25:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, content)

    monkeypatch.setattr(scratch_module, "_write", full_for_a_while)
    assert train(make_trainer(**CHANGES), tmp_path) == unbroken
    assert capsys.readouterr().err.count("No space left on device; training goes on without this checkpoint") == 21


def test_a_stop_on_a_full_disk_says_that_nothing_was_saved(make_trainer, unbroken, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stop = StopWish()
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="NOT saved; the same command goes on from"):
        patch.setattr(scratch_module, "_write", full)
        stop.signal = signal.SIGTERM
        train(make_trainer(**CHANGES), tmp_path, stop)
    assert train(make_trainer(**CHANGES), tmp_path) == unbroken


@pytest.mark.parametrize("damaged", [1, 2])
def test_truncated_checkpoints_are_passed_over_to_the_same_end(make_trainer, unbroken, tmp_path, damaged, capsys):
    """With both gone the training begins anew."""
    assert Child(train_and_die, tmp_path, CHANGES, 20, "half").end() == -signal.SIGKILL
    states = sorted((tmp_path / "training").glob("*.safetensors"))
    assert len(states) == 2
    for state in states[-damaged:]:
        state.write_bytes(state.read_bytes()[:-10])
    assert train(make_trainer(**CHANGES), tmp_path) == unbroken
    assert capsys.readouterr().err.count("not a whole checkpoint") == damaged


def test_a_kill_after_the_last_step_trains_no_step_again(make_trainer, unbroken, tmp_path):
    with Scratch(tmp_path, "training") as scratch:
        Fit(make_trainer(**CHANGES), scratch).run()
    steps = []
    with Scratch(tmp_path, "training") as scratch:
        fit = Fit(make_trainer(**CHANGES), scratch, on_step=steps.append)
        fit.resume(scratch.load())
        assert digest(*fit.run()) == unbroken
    assert steps == []


def test_a_state_with_steps_that_were_held_back_is_not_saved(make_trainer, tmp_path):
    with Scratch(tmp_path, "training") as scratch:
        trainer = make_trainer()
        fit = Fit(trainer, scratch)
        trainer._guard._halted.fill_(1)  # as a GPU does by itself, between two looks
        assert not fit._save()
        assert scratch.load() is None
