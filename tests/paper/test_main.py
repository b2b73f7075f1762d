"""`python -m pipeline.paper` as a whole, on the smallest digits, with trainings of a second."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.checkpoint import load_checkpoint
from pipeline.dataset.noise import stream_key
from pipeline.dataset.store import open_prepared
from pipeline.errors import UserError
from pipeline.metrics.likelihood import encode_split, estimate
from pipeline.metrics.streams import Stream
from pipeline.paper import __main__ as module
from pipeline.paper import training
from pipeline.paper.plan import Measure, Run
from pipeline.params import load_params

ROOT = Path(__file__).parents[2]
RECIPE = """
figures: [bound, likelihood, manifold, samples]
params:
  prepare.source: array
  prepare.path: digits.npz
  model.hidden: [16]
  train.warmup_epochs: 0
  train.global_batch_size: 20
  train.learning_rate: 0.02
  train.ema_decay: 0.0
  train.schedule: constant
  train.precision: fp32
  train.device: cpu
  train.compile: never
grid:
  model.latent_dim: [2]
  prepare.train_images: [100]
  train.objective: [elbo, wake_sleep]
also:
  - {model.latent_dim: 2, prepare.train_images: 100, train.objective: mcem}
measure: {first: 50, last: 430, per_decade: 3, images: 30, importance_samples: 3, posterior_samples: 5}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe and its digits, in which `paper` has run once."""
    folder = tmp_path_factory.mktemp("paper")
    images = (load_digits().images[:200] * 255 / 16).round().astype(np.uint8)
    np.savez(folder / "digits.npz", images=images)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "small.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_main(patch, folder)
    return folder


def run_main(patch, folder, *overrides):
    settings = [f"prepare.path={folder / 'digits.npz'}", *overrides]
    patch.setattr(sys, "argv", ["paper", "runs", "report", "small.yaml", "--set", *settings])
    module.main()


def table(folder):
    head, *rows = (folder / "report" / "small.csv").read_text().splitlines()
    return [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]


def test_a_grid_of_two_runs_and_a_point_beside_it_are_measured_and_drawn(place):
    rows = table(place)
    assert [row["train.objective"] for row in rows] == ["elbo"] * 4 + ["wake_sleep"] * 4 + ["mcem"] * 4
    assert [float(row["samples"]) for row in rows[:4]] == [60, 100, 200, 440]
    elbos = [float(row["test_elbo"]) for row in rows[:4]]
    assert elbos == sorted(elbos)
    assert elbos[-1] > elbos[0] + 2
    assert all(float(row["test_nll"]) < -float(row["test_elbo"]) for row in rows[:8])
    for first in (0, 4, 8):
        likelihoods = [float(row["test_log_p"]) for row in rows[first : first + 4]]
        assert likelihoods[-1] > likelihoods[0] + 1
    for figure in ("bound", "likelihood", "manifold", "samples"):
        assert (place / "report" / f"small-{figure}.png").stat().st_size > 1000


def test_monte_carlo_em_is_measured_without_its_encoder_and_saves_no_model(place):
    rows = [row for row in table(place) if row["train.objective"] == "mcem"]
    assert {row[column] for row in rows for column in ("train_elbo", "test_elbo", "train_nll", "test_nll")} == {""}
    [curve] = [folder for folder in (place / "runs").glob("run-*") if not (folder / "config.json").exists()]
    assert [file.name for file in curve.iterdir()] == ["curve.csv"]


def test_the_saved_model_is_the_one_that_was_measured_last(place):
    models = [file.parent for file in (place / "runs").glob("run-*/config.json")]
    [run] = [folder for folder in models if load_checkpoint(folder).objective == "wake_sleep"]
    [data] = [open_prepared(folder / "prepared") for folder in (place / "runs").glob("data-*")]
    model = load_checkpoint(run).model
    given = encode_split(
        model, training.spread(data.test.images, 30), "dynamic", stream_key(0, Stream.TEST_BINARIZATION)
    )
    found = estimate(model, given, 3, 0, 5000)
    *_, last = [row for row in table(place) if row["train.objective"] == "wake_sleep"]
    assert found.elbo.mean().item() == pytest.approx(float(last["test_elbo"]), abs=1e-3)
    assert -found.iw_bound.mean().item() == pytest.approx(float(last["test_nll"]), abs=1e-3)


def test_a_run_in_bf16_is_measured_and_kept_in_float32(place):
    [data] = [open_prepared(folder / "prepared") for folder in (place / "runs").glob("data-*")]
    params = load_params(place / "params.yaml")
    changed = params.train.model_copy(update={"precision": "bf16", "device": "cpu", "compile": "never"})
    run = Run("bf16", {}, params.model_copy(update={"train": changed}), Measure(100, 200, 1, 20, 2))
    model, rows = training.train_and_measure(run, data)
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("algorithm", ["elbo", "mcem"])
def test_of_several_learning_rates_the_one_that_is_ahead_at_first_trains_to_the_end(place, algorithm):
    [data] = [open_prepared(folder / "prepared") for folder in (place / "runs").glob("data-*")]
    params = load_params(place / "params.yaml")
    changed = params.train.model_copy(update={"device": "cpu", "compile": "never", "global_batch_size": 20})
    measure = Measure(100, 316, 2, 20, 1, posterior_samples=5 if algorithm == "mcem" else 0)
    model = params.model.model_copy(update={"latent_dim": 2})
    params = params.model_copy(update={"train": changed, "model": model})
    run = Run("several", {"train.objective": algorithm}, params, measure)
    _, rows = training.train_and_measure(dataclasses.replace(run, learning_rates=(1e-9, 1e30, 0.01)), data)
    _, alone = training.train_and_measure(run.at_rate(0.01), data)
    assert rows == alone
    assert [row["learning_rate"] for row in rows] == [0.01] * 2


def test_weights_that_a_step_held_back_are_not_measured(place, monkeypatch):
    """As on a GPU, whose steps go on until the next look at it."""
    [data] = [open_prepared(folder / "prepared") for folder in (place / "runs").glob("data-*")]
    params = load_params(place / "params.yaml")
    changed = params.train.model_copy(update={"device": "cpu", "compile": "never", "global_batch_size": 20})
    run = Run("held", {}, params.model_copy(update={"train": changed}), Measure(40, 400, 1, 20, 2))
    steps = training.Trainer.steps

    def until_the_look(trainer):
        for count, examples in enumerate(steps(trainer)):
            if count == 1:
                trainer._guard._halted.fill_(1)
            yield examples

    monkeypatch.setattr(training.Trainer, "steps", until_the_look)
    monkeypatch.setattr(training, "measure", lambda *_: pytest.fail("was measured"))
    with pytest.raises(UserError, match=r"^held: .*; expected finite terms"):
        training.train_and_measure(run, data)


def test_what_is_there_is_not_run_again_and_what_differs_is(place, monkeypatch, capsys):
    ran = []

    def train(run, data):
        ran.append(run.name)
        raise UserError("enough")

    monkeypatch.chdir(place)
    monkeypatch.setattr(module, "train_and_measure", train)
    before = table(place)
    run_main(monkeypatch, place)
    assert ran == []
    assert table(place) == before
    assert capsys.readouterr().out.splitlines()[-1] == "paper: small: 3 of 3 runs -> report"
    run_main(monkeypatch, place, "train.learning_rate=0.01", "--draw")
    assert ran == []
    assert capsys.readouterr().out.splitlines()[-1] == "paper: small: 0 of 3 runs -> report"
    with pytest.raises(UserError, match="enough"):
        run_main(monkeypatch, place, "train.learning_rate=0.01")
    assert ran == ["small-latent_dim-2-train_images-100-objective-elbo"]


def test_a_run_of_other_code_is_another_run(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(module, "sha256_of_files", lambda files: str(len(list(files))))
    run_main(monkeypatch, place, "--draw")
    assert capsys.readouterr().out.splitlines()[-1] == "paper: small: 0 of 3 runs -> report"
    assert all(list(module.PACKAGE.glob(pattern)) for pattern in module.CODE)


def test_images_are_spread_over_the_split():
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    assert training.spread(images, 5).flatten().tolist() == [0, 25, 50, 74, 99]
    assert torch.equal(training.spread(images, 1000).flatten(), torch.arange(100, dtype=torch.uint8))
