"""Steps as CUDA graphs: `make gpu` runs those that are marked where there is a device."""

import contextlib
import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from small_training import CONFIG, make_trainer

from pipeline.training import gradients
from pipeline.training.capture import CapturedStep
from pipeline.training.feed import Batch
from pipeline.training.fit import Fit


def needs_gpu(test):
    no_device = not torch.cuda.is_available()
    return pytest.mark.gpu(pytest.mark.skipif(no_device, reason="needs a CUDA device")(test))


OBJECTIVES = {
    "elbo": {},
    "free bits": {"free_bits": 0.5},
    "sampled kl": {"sampled_kl": True},
    "stl": {"objective": "stl"},
    "iwae": {"objective": "iwae"},
    "dreg": {"objective": "dreg"},
    "tc": {"objective": "tc", "beta": 4.0},
    "wake_sleep": {"objective": "wake_sleep"},
    "autoencoder": {"objective": "autoencoder"},
}
CONFIGS = {
    "conv": {"network": "conv", "hidden": (4, 6), "residual_blocks": 1, "normalization": "layer"},
    "gated": {"activation": "gated"},
    "vamp": {"prior": "vamp", "prior_components": 5},
    "mixture": {"prior": "mixture", "prior_components": 5},
    "flow": {"prior": "flow"},
    "iaf": {"posterior": "iaf"},
    "coupling": {"posterior": "coupling"},
    "ladder": {"network": "ladder", "latent_groups": 2},
    "conv ladder": {
        "network": "ladder",
        "group_network": "conv",
        "hidden": (4, 6),
        "latent_dim": 20,
        "latent_groups": 2,
    },
    "continuous_bernoulli": {"likelihood": "continuous_bernoulli"},
    "gaussian": {"likelihood": "gaussian"},
    "sigma of a batch": {"likelihood": "gaussian", "sigma": "optimal"},
    "discretized_logistic": {"likelihood": "discretized_logistic"},
    "logistic_mixture": {"likelihood": "logistic_mixture"},
}


def steps(trainer):
    """Loss, terms and gradients of the first few batches."""
    beta = torch.ones((), device="cuda")
    for batch in itertools.islice(trainer.feed.steps(1), 5):
        loss, sums = trainer._gradients(batch, beta)
        yield loss.item(), sums.clone(), trainer.flat.gradients.clone()


def expect_alike(config, changes, capsys):
    trainer, plain = (make(config, changes) for _ in range(2))
    plain._gradients._fast = None
    for found, expected in zip(steps(trainer), steps(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert isinstance(trainer._gradients._fast._fast, CapturedStep)
    assert trainer._gradients._fast.is_tried
    assert capsys.readouterr().err == ""


def make(config, changes):
    return make_trainer(dataclasses.replace(CONFIG, **config), device="cuda", compile="never", **changes)


class OnTheHost:
    """In the place of a CUDA graph: a replay takes the recorded step again, on what it read, into what it wrote."""

    def __init__(self):
        self.recorded = []

    def step(self, batch, beta):
        self.recorded.append((batch, beta))
        label = 0 if batch.label is None else batch.label.sum()
        self.loss.copy_(batch.x.sum() + 10 * batch.eps.sum() + 100 * label + 1000 * beta)
        return self.loss, self.sums

    loss, sums = torch.zeros(()), torch.zeros(3)

    def replay(self):
        self.step(*self.recorded[-1])


@pytest.fixture
def host(monkeypatch):
    graph, nothing = OnTheHost(), contextlib.nullcontext()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    for name in ("graph", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nothing)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: SimpleNamespace(wait_stream=lambda _: None))
    return graph


@pytest.mark.parametrize("has_labels", [False, True])
def test_each_call_sees_the_batch_and_the_beta_that_it_is_given(host, has_labels):
    captured = CapturedStep(host.step)
    for number in range(1, 4):
        x, eps = torch.full((2, 1, 1, 1), number / 2), torch.full((2, 3), number / 3)
        label = torch.tensor([number, 0]) if has_labels else None
        loss, _ = captured(Batch(torch.tensor([0, 1]), x, eps, label), torch.tensor(number / 4))
        assert loss.item() == pytest.approx(number * (1 + 20 + 100 * has_labels + 250))


def test_what_a_graph_reads_from_is_its_own(host):
    x, beta = torch.ones(2, 1, 1, 1), torch.ones(())
    CapturedStep(host.step)(Batch(torch.tensor([0, 1]), x, torch.ones(2, 3)), beta)
    [batch, seen] = host.recorded[-1]
    x.zero_(), beta.zero_()
    assert batch.x.sum().item() == 2
    assert seen.item() == 1


@needs_gpu
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_captured_step_is_the_plain_one_for_each_objective(name, capsys):
    expect_alike({}, OBJECTIVES[name], capsys)


@needs_gpu
@pytest.mark.parametrize("name", CONFIGS)
def test_a_captured_step_is_the_plain_one_for_each_model(name, capsys):
    expect_alike(CONFIGS[name], {}, capsys)


@needs_gpu
def test_a_step_in_bf16_is_captured(capsys):
    trainer = make({}, {"precision": "bf16"})
    losses = [loss for loss, *_ in steps(trainer)]
    assert len(set(losses)) == len(losses)
    assert isinstance(trainer._gradients._fast._fast, CapturedStep)
    assert capsys.readouterr().err == ""


@needs_gpu
def test_a_step_that_waits_for_the_device_goes_on_without_a_graph(monkeypatch, capsys):
    objective = gradients.objective

    def waiting(*arguments):
        found = objective(*arguments)
        return found if found.loss.item() else None

    monkeypatch.setattr(gradients, "objective", waiting)
    rows = Fit(make({}, {"epochs": 5})).run()[1].rows
    assert rows[-1]["val/elbo"] > rows[0]["val/elbo"]
    assert capsys.readouterr().err.count("warning: the CUDA graph of torch ") == 1
