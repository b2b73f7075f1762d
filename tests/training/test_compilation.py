import dataclasses
import itertools
import math

import pytest
import torch
from small_training import CONFIG

from pipeline.errors import UserError
from pipeline.params import load_params
from pipeline.training.compilation import TriedStep, compiled_step
from pipeline.training.fit import Fit

PARAMS = load_params().train
CPU = torch.device("cpu")
CONV_LADDER = dataclasses.replace(
    CONFIG, network="ladder", group_network="conv", hidden=(4, 6), latent_dim=20, latent_groups=2
)


def is_compiled(mode="auto", weights=1_000_000, examples=60_000, epochs=40):
    params = PARAMS.model_copy(update={"compile": mode, "epochs": epochs})
    return compiled_step(torch.sin, params, weights, examples, CPU) is not None


def test_a_long_training_is_compiled_and_a_short_one_does_not_wait_for_a_compiler(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: "compiler")
    assert is_compiled(epochs=40)
    assert not is_compiled(epochs=4)
    assert is_compiled("always", epochs=1)
    assert not is_compiled("never")


def test_on_a_gpu_the_number_of_steps_decides_and_not_their_work(monkeypatch):
    monkeypatch.setattr("torch.compile", lambda function, **_: function)

    def is_compiled_on_gpu(weights, epochs, batch):
        params = PARAMS.model_copy(update={"compile": "auto", "epochs": epochs, "global_batch_size": batch})
        return compiled_step(torch.sin, params, weights, 60_000, torch.device("cuda")) is not None

    assert is_compiled_on_gpu(weights=10, epochs=100, batch=200)
    assert not is_compiled_on_gpu(weights=10, epochs=99, batch=200)
    assert not is_compiled_on_gpu(weights=10**9, epochs=100, batch=2000)


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not is_compiled()


@pytest.mark.slow
def test_a_compiled_training_reaches_the_same_elbo_and_is_deterministic(make_trainer):
    rows = [Fit(make_trainer(compile=mode)).run()[1].rows[-1] for mode in ("never", "always", "always")]
    plain, first, second = (row["val/elbo"] for row in rows)
    assert first == pytest.approx(plain, abs=0.01)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, CONV_LADDER], ids=["mlp", "conv-ladder"])
def test_a_compiled_step_leaves_the_gradients_of_the_plain_one(make_trainer, config):
    plain, fast = (make_trainer(config, compile=mode) for mode in ("never", "always"))
    for trainer in (plain, fast):
        next(trainer.steps())
    assert plain.flat.gradients.count_nonzero() > 0
    torch.testing.assert_close(fast.flat.gradients, plain.flat.gradients, rtol=1e-4, atol=1e-5)


def losing_half_of_the_gradient(trainer, monkeypatch):
    whole = trainer._gradients._fast._fast

    def step(*arguments):
        result = whole(*arguments)
        trainer.flat.gradients[: len(trainer.flat.gradients) // 2] = 0
        return result

    monkeypatch.setattr(trainer._gradients._fast, "_fast", step)
    return trainer


@pytest.fixture
def without_a_compiler(monkeypatch):
    """What is compiled is the function itself."""
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    monkeypatch.setattr("shutil.which", lambda _: "compiler")
    monkeypatch.setattr("pipeline.training.compilation._WORTH_IT", 0)


def test_a_compiled_step_that_loses_gradients_is_told_of_and_not_used(
    make_trainer, without_a_compiler, monkeypatch, capsys
):
    plain, trainer = (
        make_trainer(compile="never"),
        losing_half_of_the_gradient(make_trainer(compile="auto"), monkeypatch),
    )
    expected, found = (Fit(one).run()[0] for one in (plain, trainer))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert capsys.readouterr().err.count("gives other gradients, by ") == 1


def test_a_compiled_step_that_loses_gradients_is_refused_where_it_is_required(
    make_trainer, without_a_compiler, monkeypatch
):
    trainer = losing_half_of_the_gradient(make_trainer(compile="always"), monkeypatch)
    with pytest.raises(
        UserError, match=r"train.compile is 'always' but torch.compile of torch .* gives other gradients"
    ):
        next(trainer.steps())


@pytest.mark.parametrize("failure", [RuntimeError("no capture"), AssertionError("no capture")])
def test_a_compiled_step_that_fails_in_its_gradient_is_told_of_and_not_used(
    make_trainer, without_a_compiler, monkeypatch, capsys, failure
):
    plain, trainer = make_trainer(compile="never"), make_trainer(compile="auto")

    def step(*_):
        trainer.flat.gradients.fill_(7)  # half-way
        raise failure

    monkeypatch.setattr(trainer._gradients._fast, "_fast", step)
    expected, found = (Fit(one).run()[0] for one in (plain, trainer))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert capsys.readouterr().err.count("fails (no capture); going on without it") == 1


def test_a_compiled_step_that_fails_is_an_error_where_it_is_required(make_trainer, without_a_compiler, monkeypatch):
    trainer = make_trainer(compile="always")
    monkeypatch.setattr(trainer._gradients._fast, "_fast", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(UserError, match=r"train.compile is 'always' but torch.compile of torch .* fails \(.*inconsist"):
        next(trainer.steps())


def test_in_place_of_a_compiled_step_that_fails_the_next_best_is_tried_and_taken(capsys):
    gradients, calls = torch.zeros(2), []

    def step(name, value):
        def take(*_):
            calls.append(name)
            gradients.fill_(value)
            return torch.zeros(()), torch.zeros(3)

        return take

    plain, captured, compiled = (step(*made) for made in (("plain", 1), ("captured", 1), ("compiled", 2)))
    held_to = {"gradients": gradients, "sizes": [2], "required": False}
    next_best = TriedStep(plain, captured, made_by="the CUDA graph", tries=1, **held_to)
    tried = TriedStep(plain, compiled, tries=3, instead=next_best, **held_to)
    for _ in range(3):
        tried()
        assert gradients.tolist() == [1, 1]
    assert calls == ["plain", "compiled", "plain", "captured", "captured"]
    assert capsys.readouterr().err.count("warning: torch.compile of torch ") == 1


def test_a_compiled_step_is_tried_once_at_a_batch_whose_gradient_is_finite(make_trainer, without_a_compiler):
    trainer, calls = make_trainer(compile="auto"), []
    trainer._beta.fill_(1)
    plain = trainer._gradients._fast._plain
    trainer._gradients._fast._plain = lambda *arguments: calls.append(arguments) or plain(*arguments)
    batches = list(itertools.islice(trainer.feed.steps(1), 4))
    poisoned = batches[0]._replace(eps=torch.full_like(batches[0].eps, math.nan))
    fast = trainer._gradients._fast._fast
    trainer._gradients._fast._fast = lambda *arguments: (fast(*arguments), trainer.flat.gradients.nan_to_num_())[0]
    trainer._gradients(poisoned, trainer._beta)
    assert not trainer.flat.gradients.isfinite().all()
    for batch in batches:
        trainer._gradients(batch, trainer._beta)
    assert [arguments[0] for arguments in calls] == [poisoned, batches[0]]


def test_a_compiled_step_that_loses_one_small_parameter_is_found(make_trainer, without_a_compiler, monkeypatch, capsys):
    trainer = make_trainer(compile="auto")
    fast, smallest = trainer._gradients._fast._fast, min(trainer.flat.sizes)
    start = sum(trainer.flat.sizes[: trainer.flat.sizes.index(smallest)])

    def step(*arguments):
        result = fast(*arguments)
        part = trainer.flat.gradients[start : start + smallest]
        assert part.norm() > 0
        part.zero_()
        return result

    monkeypatch.setattr(trainer._gradients._fast, "_fast", step)
    monkeypatch.setattr("pipeline.training.compilation._TOLERANCE", 1.0)
    next(trainer.steps())
    assert "none at all for 1 of 8 parameters" in capsys.readouterr().err


def test_a_compiled_step_that_loses_the_gradient_of_the_kl_is_found_after_an_epoch_without_it(
    make_trainer, without_a_compiler, monkeypatch, capsys
):
    plain, trainer = (make_trainer(compile=mode, warmup_epochs=2) for mode in ("never", "auto"))
    whole = trainer._gradients._fast._fast
    monkeypatch.setattr(trainer._gradients._fast, "_fast", lambda batch, beta: whole(batch, beta * 0))
    expected, found = (Fit(one).run()[0] for one in (plain, trainer))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert capsys.readouterr().err.count("gives other gradients, by ") == 1


@pytest.fixture
def failing_compiler(monkeypatch):
    def refuse(function, **_):
        def call(*_):
            raise torch._dynamo.exc.TorchDynamoException("no compiler today")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setattr("shutil.which", lambda _: "compiler")


def test_a_failing_compiler_that_is_required_is_an_error_of_one_line(failing_compiler):
    run = compiled_step(torch.sin, PARAMS.model_copy(update={"compile": "always"}), 1, 1, CPU)
    with pytest.raises(
        UserError, match=r"train.compile is 'always' but torch.compile failed \(no compiler today\); exp"
    ):
        run(torch.zeros(()))


def test_a_failing_compiler_is_told_of_and_training_goes_on(failing_compiler, capsys):
    run = compiled_step(torch.sin, PARAMS.model_copy(update={"epochs": 10_000}), 1_000_000, 60_000, CPU)
    assert run(torch.zeros(())).item() == 0
    assert run(torch.zeros(())).item() == 0
    assert capsys.readouterr().err.count("warning: torch.compile failed (no compiler today") == 1
