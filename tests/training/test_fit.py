import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_digits
from small_training import Kept

from pipeline.params import load_params
from pipeline.training.fit import Fit
from pipeline.training.ranks import Ranks
from pipeline.training.trainer import Position, Trainer
from pipeline.vae.model import VAE, VAEConfig

CONFIG = VAEConfig((1, 8, 8), "mlp", (32,), "relu", 4, "bernoulli", "learned")
DIGITS = torch.from_numpy((load_digits().images * 255 / 16).astype("uint8"))[:, None]
PARAMS = load_params().train.model_copy(
    update={"epochs": 3, "global_batch_size": 64, "warmup_epochs": 0, "device": "cpu", "precision": "fp32"}
)


def trainer(config=CONFIG, **changes):
    params = PARAMS.model_copy(update=changes)
    torch.manual_seed(params.seed)
    return Trainer(VAE(config), DIGITS[:600], DIGITS[600:800], params, torch.device("cpu"))


def weights(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def first_epoch(trainer):
    for _ in trainer.steps():
        pass
    return trainer.end_epoch()


def fit(trainer):
    return Fit(trainer).run()


def test_same_seed_same_weights_bit_for_bit():
    runs = [trainer() for _ in range(2)]
    for run in runs:
        fit(run)
    assert torch.equal(weights(runs[0].model), weights(runs[1].model))


def test_another_seed_gives_other_weights():
    runs = [trainer(seed=seed) for seed in (0, 1)]
    for run in runs:
        fit(run)
    assert not torch.equal(weights(runs[0].model), weights(runs[1].model))


def test_training_raises_the_validation_elbo():
    _, history = fit(trainer(epochs=8))
    elbos = [row["val/elbo"] for row in history.rows]
    assert elbos[-1] > elbos[0] + 5


@pytest.mark.parametrize("objective", ["iwae", "wake_sleep"])
def test_other_objectives_raise_the_validation_elbo_too(objective):
    _, history = fit(trainer(epochs=8, objective=objective))
    elbos = [row["val/elbo"] for row in history.rows]
    assert elbos[-1] > elbos[0] + 3


def test_the_last_epoch_is_kept_where_that_is_asked_for():
    """A learning rate that ruins the model: its best epoch is not its last."""
    ruined = {"learning_rate": 0.5, "ema_decay": 0.0, "schedule": "constant", "epochs": 4}
    best, last = (fit(trainer(keep_epoch=keep, **ruined))[1] for keep in ("best", "last"))
    assert best.kept_epoch == best.best_epoch < 4
    assert last.kept_epoch == 4
    assert (last.best_epoch, last.best_score) == (best.best_epoch, best.best_score)


def test_the_last_epoch_s_weights_are_those_kept():
    run = trainer(keep_epoch="last", learning_rate=0.5, ema_decay=0.0, schedule="constant", epochs=4)
    kept, history = fit(run)
    run.model.load_state_dict(kept)
    assert run.validate()["val/elbo"] == history.rows[-1]["val/elbo"] < history.best_score


def test_reported_elbo_ignores_beta():
    """beta shapes the next weights, not the number: before any step has been taken, all betas report the same."""
    reported = [first_epoch(trainer(beta=beta, learning_rate=1e-12))["train/elbo"] for beta in (0.0, 1.0, 4.0)]
    assert max(reported) - min(reported) < 1e-3


def test_what_is_reported_of_an_epoch_is_of_that_epoch_alone():
    whole, second = (trainer(learning_rate=1e-12, ema_decay=0.0) for _ in range(2))
    first_epoch(whole)
    second.position = Position(epoch=2)
    found, expected = (
        {name: value for name, value in first_epoch(run).items() if name.startswith("train/")}
        for run in (whole, second)
    )
    assert found == pytest.approx(expected, rel=1e-5)


def test_beta_shapes_the_weights():
    plain, heavy = ([row["val/kl"] for row in fit(trainer(beta=beta))[1].rows][-1] for beta in (1.0, 8.0))
    assert heavy < plain / 2


def test_elbo_is_recon_minus_kl_in_every_row():
    for row in fit(trainer())[1].rows:
        for split in ("train", "val"):
            assert row[f"{split}/elbo"] == pytest.approx(row[f"{split}/recon"] - row[f"{split}/kl"], abs=1e-6)


def test_warmup_raises_beta_linearly_from_zero():
    _, history = fit(trainer(epochs=6, warmup_epochs=4, beta=2.0))
    assert [row["beta"] for row in history.rows] == [0, 0.5, 1.0, 1.5, 2.0, 2.0]


def test_each_epoch_of_a_warm_up_trains_under_the_beta_of_its_schedule():
    rising, told = trainer(warmup_epochs=2, beta=2.0), trainer()
    for beta in (0.0, 1.0, 2.0):
        told.params = told.params.model_copy(update={"beta": beta})
        for run in (rising, told):
            first_epoch(run)
        assert torch.equal(rising.flat.weights, told.flat.weights)


def test_cosine_schedule_falls_to_zero_and_constant_stays():
    cosine, constant = ([], [])
    for schedule, rates in (("cosine", cosine), ("constant", constant)):
        run = trainer(schedule=schedule)
        step = run.optimizer.step
        run.optimizer.step = lambda rate, refused, rates=rates, step=step: (rates.append(rate), step(rate, refused))
        fit(run)
    assert cosine[0] == PARAMS.learning_rate
    assert 0 < cosine[-1] < 0.01 * PARAMS.learning_rate
    assert set(constant) == {PARAMS.learning_rate}


def test_the_best_epoch_is_what_is_kept():
    run = trainer(epochs=6, learning_rate=0.05, ema_decay=0.0, schedule="constant")
    best, history = fit(run)
    scores = [row["val/elbo"] for row in history.rows]
    assert history.best_score == max(scores)
    assert history.kept_epoch == history.best_epoch == scores.index(max(scores)) + 1
    run.model.load_state_dict(best)
    assert run.validate()["val/elbo"] == history.best_score


@pytest.mark.parametrize("keep", ["best", "last"])
def test_early_stopping_ends_after_the_patience(keep):
    run = trainer(epochs=50, learning_rate=1e-12, early_stopping_epochs=2, ema_decay=0.0, keep_epoch=keep)
    _, history = fit(run)
    assert len(history.rows) == history.best_epoch + 2
    assert history.kept_epoch == (history.best_epoch if keep == "best" else len(history.rows))


STILL = {"learning_rate": 1e-12, "ema_decay": 0.0}


def test_patience_and_the_best_epoch_wait_for_the_end_of_the_warm_up():
    _, history = fit(trainer(epochs=50, warmup_epochs=6, early_stopping_epochs=2, **STILL))
    assert history.best_epoch > 6
    assert len(history.rows) == history.best_epoch + 2
    assert history.kept_epoch == history.best_epoch


def test_what_was_best_while_beta_rose_gives_way_to_the_first_epoch_under_the_whole():
    ruined = {"learning_rate": 0.5, "ema_decay": 0.0, "schedule": "constant", "epochs": 4}
    assert fit(trainer(**ruined))[1].best_epoch < 4
    _, history = fit(trainer(warmup_epochs=3, **ruined))
    assert history.best_epoch == history.kept_epoch == 4
    assert history.best_score == history.rows[3]["val/elbo"] < max(row["val/elbo"] for row in history.rows)


def test_a_training_that_ends_in_its_warm_up_keeps_the_best_of_it():
    _, history = fit(trainer(epochs=3, warmup_epochs=9, early_stopping_epochs=1, **STILL))
    assert len(history.rows) == 3
    assert history.rows[history.best_epoch - 1]["val/elbo"] == max(row["val/elbo"] for row in history.rows)


def test_an_autoencoder_has_no_beta_to_wait_for():
    _, history = fit(trainer(epochs=50, warmup_epochs=40, early_stopping_epochs=2, objective="autoencoder", **STILL))
    assert len(history.rows) == history.best_epoch + 2 < 40


def test_validation_is_the_same_every_time():
    run = trainer()
    assert run.validate() == run.validate()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_validation_measures_the_averaged_weights(precision):
    averaged, plain = (trainer(precision=precision, ema_decay=decay, learning_rate=0.05) for decay in (0.99, 0.0))
    found, measured = first_epoch(averaged), []
    for weights in (averaged.average.weights, averaged.flat.weights):
        plain.flat.weights.copy_(weights)
        plain.flat.publish()
        measured.append(plain.validate())
    assert {name: found[name] for name in measured[0]} == measured[0] != measured[1]


def test_average_trails_the_trained_weights():
    averaged, plain = trainer(ema_decay=0.99), trainer(ema_decay=0.0)
    for run in (averaged, plain):
        fit(run)
    assert torch.equal(weights(averaged.model), weights(plain.model))
    assert not torch.equal(averaged.average.weights, averaged.flat.weights)
    assert torch.equal(plain.average.weights, plain.flat.weights)


def test_the_ramp_of_the_average_goes_on_over_the_epochs():
    run = trainer()
    expected = run.flat.weights.clone()
    for before in (0, run.feed.steps_per_epoch):
        for step, _ in enumerate(run.steps(), before + 1):
            expected.lerp_(run.flat.weights, 9 / (10 + step))
        run.end_epoch()
    assert (run.average.weights - expected).abs().max() < 1e-6


def test_autoencoder_reports_reconstruction_alone_and_draws_no_noise():
    run = trainer(objective="autoencoder")
    _, history = fit(run)
    measured = {name for name in history.rows[0] if "/" in name}
    assert measured == {"train/recon", "val/recon"}
    logvar = run.model.encoder[-1].weight[CONFIG.latent_dim :]
    torch.manual_seed(PARAMS.seed)
    assert torch.equal(logvar, VAE(CONFIG).encoder[-1].weight[CONFIG.latent_dim :])  # nothing ever moved it


def test_autoencoder_reconstructs_better_than_the_vae():
    plain, variational = (
        fit(trainer(objective=objective, epochs=10))[1].rows[-1] for objective in ("autoencoder", "elbo")
    )
    assert plain["val/recon"] > variational["val/recon"]


def test_bf16_trains_to_the_same_elbo():
    fp32, bf16 = (fit(trainer(precision=precision, epochs=5))[1].rows[-1]["val/elbo"] for precision in ("fp32", "bf16"))
    assert bf16 == pytest.approx(fp32, abs=0.5)


def test_conv_with_a_learned_sigma_raises_the_elbo():
    config = dataclasses.replace(CONFIG, network="conv", hidden=(4,), likelihood="gaussian")
    run = trainer(config, binarize="none", epochs=10)
    before = run.model.likelihood.logvar.item()
    _, history = fit(run)
    assert history.rows[-1]["val/elbo"] > history.rows[0]["val/elbo"] + 5
    assert run.model.likelihood.logvar.item() != before


def test_validation_tells_the_kl_of_each_group_of_a_ladder():
    ladder = dataclasses.replace(CONFIG, network="ladder", latent_dim=6, latent_groups=2)
    of_ladder = trainer(ladder, ema_decay=0.0)
    row = first_epoch(of_ladder)
    with torch.no_grad():
        draws = [of_ladder.model.posterior(batch.x).draw(batch.eps) for batch in of_ladder.feed.validation()]
    kl = torch.cat([draw.kl_per_dimension for draw in draws]).mean(0)
    assert row["val/kl_group_1"] == pytest.approx(kl[:3].sum().item(), rel=1e-5)
    assert row["val/kl_group_2"] == pytest.approx(kl[3:].sum().item(), rel=1e-5)
    assert row["val/kl_group_1"] + row["val/kl_group_2"] == pytest.approx(row["val/kl"], rel=1e-5)
    assert "val/kl_group_3" not in row
    assert not [name for name in first_epoch(trainer()) if "group" in name]


def test_images_a_second_are_of_the_time_that_all_steps_of_the_epoch_took_and_no_other(monkeypatch):
    ticks = itertools.count()  # a second within each of 12 steps, and one between them
    monkeypatch.setattr("pipeline.training.trainer.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    run = trainer(global_batch_size=50)
    assert [first_epoch(run)["images_per_second"] for _ in range(2)] == [600 / 12] * 2


def test_a_state_is_saved_whenever_so_many_minutes_have_passed_since_the_last_one(monkeypatch):
    steps, kept = [], Kept()
    monkeypatch.setattr("pipeline.training.fit.time.monotonic", lambda: 60 * len(steps))  # a step takes a minute
    run = trainer(epochs=1, global_batch_size=50, checkpoint_minutes=4)
    Fit(run, kept, on_step=steps.append).run()
    positions = [state.content["position"] for state in kept.states]
    assert [(position["epoch"], position["step"]) for position in positions] == [(1, 4), (1, 8), (1, 12), (2, 0)]


@pytest.mark.parametrize(("seconds", "apart"), [(0.001, 16), (0.25, 4), (3.0, 1)])
def test_ranks_ask_one_another_once_a_second_or_every_16_steps(monkeypatch, seconds, apart):
    looks, steps = [], []

    class Alone(Ranks):
        """The first of two ranks; what it asks, nobody answers."""

        def add_up(self, value):
            return value

        def copy_from_first(self, value):
            looks.append(len(steps))
            return value

    monkeypatch.setattr("pipeline.training.fit.time.monotonic", lambda: 1 + seconds * len(steps))
    params = PARAMS.model_copy(update={"epochs": 1, "global_batch_size": 10})
    ranked = Trainer(VAE(CONFIG), DIGITS[:600], DIGITS[600:800], params, torch.device("cpu"), Alone(0, 2))
    Fit(ranked, on_step=steps.append).run()
    first, *others, last = looks
    assert (first, last) == (1, 60)  # after a step, whose time is not known before; and after the epoch
    assert {later - earlier for earlier, later in itertools.pairwise([first, *others])} == {apart}
