import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from pipeline.checkpoint import load_checkpoint
from pipeline.dataset.batches import mapped_images
from pipeline.dataset.store import open_prepared
from pipeline.errors import UserError
from pipeline.files import read_csv, read_json
from pipeline.params import load_params
from pipeline.train import build_model
from pipeline.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
DIGITS = [str(digit) for digit in range(10)]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def column(folder, name):
    return [row[name] for row in read_csv(folder / "history.csv")]


def test_where_the_device_s_memory_ends_a_smaller_batch_is_asked_for(workplace, monkeypatch):
    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more.")

    monkeypatch.setattr(Trainer, "_step", step)
    assert_nothing_was_written(
        workplace,
        r"^params.yaml: the device's memory is too small \(CUDA out of memory\); expected a smaller "
        r"train.global_batch_size$",
    )


def test_a_model_that_is_larger_than_memory_is_to_be_smaller(workplace, monkeypatch):
    monkeypatch.setattr("pipeline.train.VAE", lambda _: torch.empty(10**14))
    assert_nothing_was_written(
        workplace, r"the device's memory is too small \(can't allocate .*\); expected a smaller model.hidden$"
    )


def test_a_vamp_prior_sets_out_from_training_images(workplace):
    still = {"train__epochs": 1, "train__learning_rate": 1e-30, "train__ema_decay": 0.0}
    folder = workplace.train(model__prior="vamp", model__prior_components=7, **still)
    inputs = load_checkpoint(folder).model.prior.logits.detach().sigmoid()
    images = mapped_images(open_prepared(Path("data/prepared")).train.images) / 255
    apart = (inputs[:, None] - images.clamp(0.02, 0.98)).abs().flatten(2).amax(2)
    assert apart.amin(1).max() < 1e-4
    assert len(set(apart.argmin(1).tolist())) == 7


def test_pseudo_inputs_of_a_conditional_model_keep_the_classes_of_their_images(workplace):
    workplace.prepare({"train": 60, "val": 20, "test": 20}, classes=[str(digit) for digit in range(10)])
    still = {"train__epochs": 1, "train__learning_rate": 1e-30, "train__ema_decay": 0.0}
    folder = workplace.train(
        model__condition="label", model__prior="vamp", model__prior_components=70, **still
    )  # more than there are images
    prior = load_checkpoint(folder).model.prior
    train = open_prepared(Path(workplace.prepared)).train
    images = mapped_images(train.images) / 255
    apart = (prior.logits.detach().sigmoid()[:, None] - images.clamp(0.02, 0.98)).abs().flatten(2).amax(2)
    assert apart.amin(1).max() < 1e-4
    assert prior.label.tolist() == [int(train.labels[place]) for place in apart.argmin(1)]
    assert len(set(apart.argmin(1).tolist())) == 60


def assert_nothing_was_written(workplace, expected, **changes):
    with pytest.raises(UserError, match=expected) as error:
        workplace.train(**changes)
    assert "\n" not in str(error.value)
    assert list(Path().rglob("models/*")) == []


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model__network": "conv", "model__hidden": [8, 8, 8, 8]}, "model.hidden has 4 stages; expected 1 to 3"),
        ({"model__condition": "label"}, "data/prepared/meta.json: the images have no classes"),
        ({"train__binarize": "none"}, "model.likelihood is 'bernoulli' with train.binarize: none, but "),
    ],
)
def test_what_does_not_fit_the_images_is_found_before_anything_is_made(
    workplace, store, monkeypatch, changes, expected, devices
):
    monkeypatch.setattr("pipeline.train.launch", lambda *_: pytest.fail("ranks were started"))
    assert_nothing_was_written(workplace, expected, **changes, train__devices=devices)
    assert not Path(".training").exists()
    assert not store.search_runs(["0", "1"])


def test_the_checkpoint_holds_weights_config_history_and_run(workplace, store):
    folder = workplace.train()
    names = ["config.json", "history.csv", "model.safetensors", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    record = read_json(folder / "run.json")
    row = store.get_run(record["run_id"])
    assert row.info.status == "FINISHED"
    assert row.data.params["model.latent_dim"] == "3"
    assert row.data.params["prepare.source"] == "mnist-5k"
    assert row.data.tags["data_sha256"] == open_prepared("data/prepared").sha256
    assert row.data.tags["params_hash"] == load_params().digest()
    logged = [point.value for point in store.get_metric_history(record["run_id"], "val/elbo")]
    assert logged == column(folder, "val/elbo")
    assert sorted(item.path for item in store.list_artifacts(record["run_id"], "train")) == [
        f"train/{name}" for name in names
    ]


def test_the_model_sees_pixels_standardised_by_their_own_mean_and_deviation(workplace):
    config = load_checkpoint(workplace.train()).model.config
    values = open_prepared("data/prepared").meta["values"]
    assert config.pixel_mean == pytest.approx(values["mean"] / 255)
    assert config.pixel_standard_deviation == pytest.approx(values["standard_deviation"] / 255)


def test_images_that_are_all_alike_are_not_divided_by_zero(workplace):
    prepared = open_prepared("data/prepared")
    meta = {**prepared.meta, "values": {**prepared.meta["values"], "standard_deviation": 0.0}}
    model = build_model(load_params(ROOT / "params.yaml").model, dataclasses.replace(prepared, meta=meta), seed=0)
    assert model.encode(torch.zeros(1, *prepared.image_shape))[0].isfinite().all()


def test_same_seed_same_weights_bit_for_bit(workplace):
    first = weights(workplace.train("first", train__binarize="dynamic"))
    torch.rand(3)
    np.random.default_rng().random(3)
    assert weights(workplace.train("second", train__binarize="dynamic")) == first


def test_another_seed_gives_other_weights(workplace):
    assert weights(workplace.train("first")) != weights(workplace.train("second", train__seed=1))


def test_the_weights_of_the_best_epoch_are_kept_and_what_is_kept_is_told(workplace, capsys):
    folder = workplace.train(train__epochs=12, train__learning_rate=0.3)
    elbo = column(folder, "val/elbo")
    best = elbo.index(max(elbo))
    assert best < len(elbo) - 1, "the case needs a training whose last epoch is not its best"
    model, params, data = load_checkpoint(folder).model, load_params(), open_prepared("data/prepared")
    images = mapped_images(data.val.images)
    validated = Trainer(model, images, images, params.train, torch.device("cpu")).validate()
    assert validated["val/elbo"] == pytest.approx(elbo[best], rel=1e-6)
    assert read_json(folder / "run.json")["metrics"] == {"best_epoch": best + 1, "kept_epoch": best + 1}
    told = f"train: best val/elbo {elbo[best]:.2f} nats at epoch {best + 1} of 12"
    assert f"{told} -> {folder}" in capsys.readouterr().out
    last = workplace.train("last", train__epochs=12, train__learning_rate=0.3, train__keep_epoch="last")
    assert read_json(last / "run.json")["metrics"] == {"best_epoch": best + 1, "kept_epoch": 12}
    assert f"{told}; kept: the last, {elbo[-1]:.2f} nats -> {last}" in capsys.readouterr().out


def test_history_has_a_row_for_each_epoch(workplace):
    rows = read_csv(workplace.train(train__epochs=3) / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    terms = {f"{split}/{name}" for split in ("train", "val") for name in ("elbo", "recon", "kl")}
    assert set(rows[0]) == {"epoch", *terms, "beta", "learning_rate", "largest_gradient_norm", "images_per_second"}
    for row in rows:
        assert row["val/elbo"] == pytest.approx(row["val/recon"] - row["val/kl"])


def test_a_likelihood_that_does_not_suit_the_values_is_refused_before_anything_is_written(workplace):
    with pytest.raises(UserError, match="model.likelihood is 'bernoulli' with train.binarize: none, but "):
        workplace.train(train__binarize="none")
    assert not Path("models").exists()


def test_a_plain_auto_encoder_is_but_warned(workplace, capsys):
    workplace.train(train__binarize="none", train__objective="autoencoder")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: params.yaml: model.likelihood is 'bernoulli' with train.binarize: none, but ")
    assert "better model.likelihood: gaussian, " in line


def test_a_warm_up_that_outlasts_the_training_is_but_warned_of(workplace, capsys):
    assert column(workplace.train(train__epochs=1, train__warmup_epochs=10), "beta") == [0]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: params.yaml: train.warmup_epochs is 10 while train.epochs is 1: beta ends at 0 ")


def test_a_non_finite_loss_ends_in_one_line_with_nothing_written(workplace, store):
    workplace.set_params(train__learning_rate=1e9)
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.train", "data/prepared", "models/checkpoint", ".training"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: train: the loss is not finite at epoch 1, step 2 (recon ")
    assert ", kl " in line
    assert "; training examples " in line
    assert "the update was not applied; all 50 examples of the step: " in line
    assert "nonfinite.csv; expected finite terms: try a lower train.learning_rate" in line
    assert list(Path().rglob("models/*")) == []
    [row] = store.search_runs([store.get_experiment_by_name("vae").experiment_id])
    assert row.info.status == "FAILED"


def test_a_failure_keeps_the_checkpoint_of_the_last_training(workplace):
    before = weights(workplace.train())
    with pytest.raises(UserError, match="the loss is"):
        workplace.train(train__learning_rate=1e9)
    assert weights(Path("models/checkpoint")) == before
    assert [path.name for path in Path("models").iterdir()] == ["checkpoint"]


def test_a_training_that_begins_tells_of_another_left_unfinished(workplace, capsys):
    left = Path(".training", "0123456789abcdef" * 2, "00000001.safetensors")
    left.parent.mkdir(parents=True)
    left.touch()
    workplace.train(train__epochs=1)
    assert "train: 1 unfinished training (0.0 MB) of other params, data or code in " in capsys.readouterr().out
    assert left.exists()


def test_the_reported_elbo_ignores_beta(workplace):
    still = {"train__learning_rate": 1e-30, "train__epochs": 1}
    free, heavy = (workplace.train(f"beta{beta}", train__beta=beta, **still) for beta in (0.0, 4.0))
    assert column(free, "beta") == [0]
    assert column(heavy, "beta") == [4]
    for name in ("train/elbo", "val/elbo", "val/kl"):
        assert column(free, name) == pytest.approx(column(heavy, name), rel=1e-6)


def test_an_autoencoder_reports_its_reconstruction_alone(workplace, capsys):
    folder = workplace.train(train__objective="autoencoder")
    columns = {"epoch", "train/recon", "val/recon", "learning_rate", "largest_gradient_norm", "images_per_second"}
    assert set(read_csv(folder / "history.csv")[0]) == columns
    assert "train: best val/recon " in capsys.readouterr().out
    assert load_checkpoint(folder).objective == "autoencoder"


def test_averaging_changes_what_is_kept_and_not_how_it_is_trained(workplace):
    plain, averaged = (workplace.train(f"ema{decay}", train__ema_decay=decay) for decay in (0.0, 0.9))
    assert column(plain, "train/elbo") == column(averaged, "train/elbo")
    assert column(plain, "val/elbo") != column(averaged, "val/elbo")
    assert weights(plain) != weights(averaged)


def test_early_stopping_stops_after_epochs_without_a_better_one(workplace):
    still = {"train__learning_rate": 1e-30, "train__epochs": 50}
    assert len(column(workplace.train("stopped", train__early_stopping_epochs=3, **still), "epoch")) == 4


def test_the_cosine_schedule_ends_near_zero_and_constant_stays(workplace):
    rates = column(workplace.train("cosine", train__schedule="cosine", train__epochs=20), "learning_rate")
    assert rates == pytest.approx([0.003 * 0.5 * (1 + math.cos(math.pi * epoch / 20)) for epoch in range(20)])
    assert rates[-1] < 0.01 * rates[0]
    assert column(workplace.train("constant", train__schedule="constant"), "learning_rate") == [0.003] * 2


def test_a_training_reckons_without_denormal_numbers(workplace):
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    smallest = torch.tensor([torch.finfo(torch.float32).tiny])
    assert (smallest / 2).item() > 0
    workplace.train(train__epochs=1)
    assert (smallest / 2).item() == 0


def test_bf16_trains_close_to_fp32(workplace):
    half, full = (workplace.train(precision, train__precision=precision) for precision in ("bf16", "fp32"))
    assert column(half, "val/elbo") != column(full, "val/elbo")
    assert column(half, "val/elbo") == pytest.approx(column(full, "val/elbo"), rel=0.02)
    assert {value.dtype for value in load_file(half / "model.safetensors").values()} == {torch.float32}


def test_a_gaussian_likelihood_learns_its_sigma(workplace):
    folder = workplace.train(model__likelihood="gaussian", train__binarize="none", train__epochs=5)
    assert "likelihood.logvar" in load_file(folder / "model.safetensors")
    assert column(folder, "val/elbo")[-1] > column(folder, "val/elbo")[0]


def test_conv_trains_on_small_images(workplace):
    folder = workplace.train(model__network="conv", model__hidden=[4, 8])
    assert load_checkpoint(folder).model.config.network == "conv"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(workplace):
    expected = r"^params.yaml: train.device is 'cuda' but no CUDA device is available; expected auto or cpu$"
    assert_nothing_was_written(workplace, expected, train__device="cuda")


def test_conv_refuses_images_that_are_too_small(workplace):
    workplace.prepare({"train": 50, "val": 10, "test": 10}, size=6)
    expected = r"^params.yaml: images are 6x6; expected at least 8x8 for convolutions \(prepare.image_size resizes"
    assert_nothing_was_written(workplace, expected, model__network="conv", model__hidden=[4])


def test_conv_refuses_more_stages_than_the_images_allow(workplace):
    expected = r"^params.yaml: model.hidden has 4 stages; expected 1 to 3 for 8x8 images"
    assert_nothing_was_written(workplace, expected, model__network="conv", model__hidden=[4, 4, 4, 4])


def test_missing_data_is_named(workplace):
    workplace.prepared = "data/nowhere"
    assert_nothing_was_written(workplace, r"^data/nowhere/meta.json: not found; expected a file that an earlier stage")


def test_the_output_says_how_far_training_is(workplace, capsys):
    workplace.train(train__epochs=2)
    lines = capsys.readouterr().out.splitlines()
    size, *epochs, end = lines
    count = sum(weight.numel() for weight in load_file("models/checkpoint/model.safetensors").values())
    assert size.startswith(f"train: {count:,} parameters, 4 steps an epoch, ")
    assert [line.split()[:2] for line in (*epochs, end)] == [["epoch", "1/2"], ["epoch", "2/2"], ["train:", "best"]]
    assert "images/s" in epochs[0]


CONDITIONAL = {"model__condition": "label", "model__prior": "per_class"}


def test_a_conditional_model_keeps_the_names_of_its_classes_and_leaves_out_those_that_were_held_out(workplace, capsys):
    nines = np.flatnonzero(load_digits().target == 9).tolist()
    workplace.prepare({"held_out": nines, "train": 200, "val": 60, "test": 50}, classes=DIGITS, held_out=True)
    config = read_json(workplace.train(**CONDITIONAL) / "config.json")["model"]
    assert config["classes"] == DIGITS[:9]
    assert load_checkpoint("models/checkpoint").model.config.classes == tuple(DIGITS[:9])
    assert "train: best val/elbo" in capsys.readouterr().out


def test_a_condition_without_classes_is_refused_before_anything_is_written(workplace):
    expected = (
        "data/prepared/meta.json: the images have no classes, which model.condition: label wants; .* or model.condition"
    )
    assert_nothing_was_written(workplace, expected, **CONDITIONAL)
