import math

import pytest
import small_training
import torch
from small_training import Kept, digest

from pipeline.errors import UserError
from pipeline.files import read_csv
from pipeline.training.feed import Feed
from pipeline.training.fit import Fit
from pipeline.training.nonfinite import NonFiniteError
from pipeline.training.scratch import Scratch


@pytest.fixture
def poison(monkeypatch):
    """As the helper of that name, until the test ends."""

    def poison(example, when=lambda epoch: True):
        monkeypatch.setattr(Feed, "_ready", Feed._ready)  # so that it is undone
        small_training.poison(example, when)

    return poison


def test_a_nan_in_a_batch_names_the_step_the_example_and_the_terms(make_trainer, poison):
    poison(17)
    trainer = make_trainer(epochs=1)
    with pytest.raises(NonFiniteError) as error:
        list(trainer.steps())
    step = trainer.position.step
    assert 17 in trainer.feed.examples(1, step)
    [line] = str(error.value).splitlines()
    assert line.startswith(f"the loss is not finite at epoch 1, step {step + 1} (recon nan, kl ")
    assert line.endswith("; training examples 17); the update was not applied")


def test_a_step_that_is_not_finite_never_reaches_weights_average_or_optimizer(make_trainer, poison):
    poison(17)
    trainer, before = make_trainer(epochs=1), {}
    with pytest.raises(NonFiniteError):
        for _ in trainer.steps():
            before = {name: value.clone() for name, value in trainer.tensors().items()}
    after = trainer.tensors()
    for name in ("weights", "average", "adam.step", "adam.exp_avg", "adam.exp_avg_sq"):
        assert torch.equal(after[name], before[name])
        assert after[name].isfinite().all()


def test_a_gradient_alone_is_enough(make_trainer):
    trainer = make_trainer(epochs=1)
    first = next(iter(trainer.model.parameters()))
    first.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteError, match="the gradient, though not the loss, is not finite at epoch 1, step 1"):
        list(trainer.steps())


def test_a_loss_alone_is_enough(make_trainer, monkeypatch):
    trainer = make_trainer(epochs=1)
    plain = trainer._gradients
    monkeypatch.setattr(trainer, "_gradients", lambda batch, beta: (torch.tensor(-math.inf), plain(batch, beta)[1]))
    with pytest.raises(NonFiniteError, match="is not finite at epoch 1, step 1"):
        list(trainer.steps())


def test_stop_ends_with_one_line(make_trainer, poison):
    poison(17)
    with pytest.raises(UserError, match=r"^train: the loss is not finite .*; the update was not applied") as error:
        Fit(make_trainer(on_nonfinite="stop")).run()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["stop", "rollback"])
def test_the_whole_batch_is_in_a_file_that_the_error_names(make_trainer, poison, tmp_path, mode):
    poison(17)
    trainer = make_trainer(on_nonfinite=mode)
    with Scratch(tmp_path, "training") as scratch, pytest.raises(UserError) as error:
        Fit(trainer, scratch).run()
    file = tmp_path / "training" / "nonfinite.csv"
    assert f"; all 64 examples of the step: {file}; " in str(error.value)
    rows = {int(row["example"]): row for row in read_csv(file)}
    assert list(rows) == trainer.feed.examples(1, trainer.position.step).tolist()
    assert math.isnan(rows.pop(17)["recon"])
    assert all(math.isfinite(row["recon"]) and row["kl"] >= 0 for row in rows.values())


def test_rollback_goes_on_with_half_the_learning_rate(make_trainer, poison, capsys):
    fit = Fit(make_trainer(on_nonfinite="rollback", schedule="constant"))
    poison(17, when=lambda epoch: epoch == 2 and not fit.history.returns)
    _, history = fit.run()
    assert history.returns == 1
    assert [row["epoch"] for row in history.rows] == [1, 2, 3]
    rates = [row["learning_rate"] for row in history.rows]
    assert rates == pytest.approx([rates[0], rates[0] / 2, rates[0] / 2])
    assert "back to epoch 2, step 0, with 0.5 of the learning rate (return 1 of 5)" in capsys.readouterr().err


def test_whoever_counts_the_images_of_an_epoch_hears_of_a_rollback(make_trainer, poison):
    heard = []
    trainer = make_trainer(on_nonfinite="rollback")
    fit = Fit(trainer, on_step=heard.append, on_return=lambda epoch: heard.append(f"back to {epoch}"))
    poison(17, when=lambda epoch: epoch == 2 and not fit.history.returns)
    fit.run()
    place = heard.index("back to 2")
    assert sum(heard[place + 1 :]) == 2 * 600
    assert 600 <= sum(heard[:place]) < 2 * 600


ROLLBACK = {"on_nonfinite": "rollback", "epochs": 4, "global_batch_size": 50}


def poisoned_fit(make_trainer, poison, scratch=None, **changes):
    """It meets a NaN in the third epoch, unless it has gone back before."""
    fit = Fit(make_trainer(**ROLLBACK | changes), scratch)
    poison(17, when=lambda epoch: epoch == 3 and not fit.history.returns)
    return fit


def test_rollback_goes_back_to_the_end_of_an_epoch_however_often_states_are_saved(make_trainer, poison, capsys):
    digests = [
        digest(*poisoned_fit(make_trainer, poison, Kept(), checkpoint_minutes=minutes).run()) for minutes in (1e-9, 60)
    ]
    assert digests[0] == digests[1]
    assert capsys.readouterr().err.count("back to epoch 3, step 0, with 0.5 of the learning rate") == 2


def test_a_kill_before_or_after_a_rollback_changes_nothing(make_trainer, poison):
    kept = Kept()
    expected = digest(*poisoned_fit(make_trainer, poison, kept, checkpoint_minutes=1e-9).run())
    between = [state for state in kept.states if state.content["position"]["epoch"] in (3, 4)]
    assert {state.content["history"]["returns"] for state in between} == {0, 1}
    for state in between[1::3]:  # within the third epoch, too, not only as it begins
        fit = poisoned_fit(make_trainer, poison)
        fit.resume(state)
        assert digest(*fit.run()) == expected


def test_rollback_gives_up_after_five_returns(make_trainer, poison, capsys):
    poison(17)
    with pytest.raises(UserError, match=r"training examples 17\); .*not applied; given up after 5 returns") as error:
        Fit(make_trainer(on_nonfinite="rollback")).run()
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err.count("of the learning rate") == 5


def exploding(make_trainer, learning_rate):
    changes = {"schedule": "constant", "epochs": 2, "ema_decay": 0.0, "binarize": "none"}
    return make_trainer(on_nonfinite="rollback", learning_rate=learning_rate, **changes)


def test_rollback_survives_a_learning_rate_that_explodes(make_trainer):
    """The first steps destroy the weights; some returns later the rate is low enough for steps that are finite."""
    _, history = Fit(exploding(make_trainer, 2e5)).run()
    assert 1 <= history.returns <= 4
    assert [row["learning_rate"] for row in history.rows] == [2e5 * 0.5**history.returns] * 2
    first, second = (row["val/elbo"] for row in history.rows)
    assert second > first


def test_rollback_gives_up_a_learning_rate_that_explodes_however_often_it_is_halved(make_trainer):
    trainer = exploding(make_trainer, 3e7)
    with pytest.raises(UserError, match="given up after 5 returns"):
        Fit(trainer).run()
    assert trainer.flat.weights.isfinite().all()


def test_a_validation_that_is_not_finite_is_refused(make_trainer):
    run = make_trainer(epochs=1, ema_decay=0.0, learning_rate=1e30, global_batch_size=600, schedule="constant")
    with pytest.raises(UserError, match=r"the validation score is -?(nan|inf) after epoch 1 \(val/recon .*, val/kl .*"):
        Fit(run).run()


def test_clipping_shortens_the_gradient_and_keeps_its_direction(make_trainer):
    free, clipped = (make_trainer(epochs=1, max_gradient_norm=limit) for limit in (None, 1.0))
    for trainer in (free, clipped):
        assert next(trainer.steps()) == 64
    norm = torch.linalg.vector_norm(free.flat.gradients)
    assert norm > 2
    torch.testing.assert_close(clipped.flat.gradients, free.flat.gradients / norm)


def test_a_short_gradient_is_not_clipped(make_trainer):
    free, clipped = (make_trainer(epochs=1, max_gradient_norm=limit) for limit in (None, 1e6))
    for trainer in (free, clipped):
        list(trainer.steps())
    assert torch.equal(free.flat.weights, clipped.flat.weights)


def test_the_largest_gradient_norm_of_an_epoch_is_reported_as_it_was_before_clipping(make_trainer):
    trainer, largest = make_trainer(epochs=2, max_gradient_norm=None, learning_rate=0.02), []
    for _ in range(2):
        largest.append(max(torch.linalg.vector_norm(trainer.flat.gradients).item() for _ in trainer.steps()))
        assert trainer.end_epoch()["largest_gradient_norm"] == pytest.approx(largest[-1])
    assert largest[1] < largest[0], "the case needs an epoch whose gradients are shorter than those before it"
    clipped = make_trainer(epochs=1, max_gradient_norm=1e-3)
    list(clipped.steps())
    assert clipped.end_epoch()["largest_gradient_norm"] > 1
