"""The same engine on CUDA: `make gpu` runs these where there is a device."""

import math

import pytest
import torch
from small_training import Kept

from pipeline.training import feed
from pipeline.training.feed import Feed
from pipeline.training.fit import Fit
from pipeline.training.nonfinite import NonFiniteError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def elbo(trainer):
    return Fit(trainer).run()[1].rows[-1]["val/elbo"]


ADAGRAD = {"optimizer": "adagrad", "learning_rate": 0.02}


def test_a_gpu_trains_by_adagrad_to_the_elbo_of_the_cpu(make_trainer):
    expected, found = (elbo(make_trainer(device=device, epochs=5, **ADAGRAD)) for device in ("cpu", "cuda"))
    assert found == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("compile_", ["never", "always"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_to_the_elbo_of_the_cpu(make_trainer, precision, compile_):
    expected = elbo(make_trainer(epochs=5))
    on_gpu = make_trainer(device="cuda", epochs=5, precision=precision, compile=compile_)
    assert elbo(on_gpu) == pytest.approx(expected, abs=0.5)


def test_images_and_weights_lie_on_the_gpu(make_trainer):
    trainer = make_trainer(device="cuda")
    assert {trainer.feed.train.device.type, trainer.flat.weights.device.type} == {"cuda"}


def test_the_noise_of_an_example_is_that_of_the_cpu(make_trainer):
    for ours, theirs in zip(*(make_trainer(device=device).feed.steps(1) for device in ("cpu", "cuda")), strict=True):
        assert torch.equal(ours.examples, theirs.examples.cpu())
        assert torch.equal(ours.x, theirs.x.cpu())
        torch.testing.assert_close(ours.eps, theirs.eps.cpu())


@pytest.mark.parametrize("resident", [True, False])
def test_no_step_waits_for_the_gpu(make_trainer, monkeypatch, resident):
    monkeypatch.setitem(feed._BLOCK_VALUES, "cuda", 100 * 64)  # so that each step makes its own batch ready
    if not resident:
        monkeypatch.setattr(feed, "_resident", lambda images, device: images)
    trainer = make_trainer(device="cuda", epochs=1, global_batch_size=100)
    steps = trainer.steps()
    for _ in range(2):  # at which the captured step is held to the plain one
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.position.step == 5


@pytest.fixture
def poison(monkeypatch):
    """Makes the training noise of example 17 NaN in the epochs for which `when` says so."""
    ready = Feed._ready

    def poison(when):
        def poisoned(self, images, examples, split, *epoch):
            x, eps = ready(self, images, examples, split, *epoch)
            if epoch and when(*epoch):
                eps = torch.where((examples == 17).to(eps.device)[:, None], math.nan, eps)
            return x, eps

        monkeypatch.setattr(Feed, "_ready", poisoned)

    return poison


@pytest.mark.parametrize("optimizer", [{}, ADAGRAD], ids=["adam", "adagrad"])
def test_a_step_that_is_not_finite_never_reaches_the_weights(make_trainer, poison, optimizer):
    poison(lambda epoch: True)
    trainer = make_trainer(device="cuda", epochs=1, **optimizer)
    with pytest.raises(NonFiniteError, match=r"training examples 17\)"):
        list(trainer.steps())
    kept = trainer.tensors()
    del kept["sums"]  # of an epoch that is given up
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_a_rollback_goes_on_from_the_last_good_epoch(make_trainer, poison, capsys):
    fit = Fit(make_trainer(device="cuda", epochs=4, on_nonfinite="rollback"), Kept())
    poison(lambda epoch: epoch == 3 and not fit.history.returns)
    rows = fit.run()[1].rows
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["val/elbo"] > rows[1]["val/elbo"]
    assert "back to epoch 3, step 0, with 0.5 of the learning rate" in capsys.readouterr().err


def test_a_saved_state_leads_to_the_same_end(make_trainer):
    changes = {"device": "cuda", "epochs": 3, "checkpoint_minutes": 1e-9}
    kept = Kept()
    expected = Fit(make_trainer(**changes), kept).run()[1].rows[-1]["val/elbo"]
    fit = Fit(make_trainer(**changes))
    fit.resume(kept.states[len(kept.states) // 2])
    assert fit.run()[1].rows[-1]["val/elbo"] == pytest.approx(expected, abs=0.01)
