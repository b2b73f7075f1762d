import pytest

from pipeline.params import load_params
from pipeline.training.schedule import check_warmup, is_warm, learning_rate_factor, part_of, warmed_up


def warning(**changes):
    return check_warmup(load_params().train.model_copy(update=changes))


def test_cosine_falls_from_one_to_zero_and_is_half_way_in_the_middle():
    assert [learning_rate_factor("cosine", step, 10) for step in (0, 5, 10)] == pytest.approx([1, 0.5, 0])


def test_constant_stays():
    assert {learning_rate_factor("constant", step, 10) for step in range(11)} == {1.0}


def test_beta_rises_linearly_from_zero():
    assert [warmed_up(2.0, epoch, 4) for epoch in range(1, 7)] == [0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert warmed_up(2.0, 1, 0) == 2.0


def test_the_first_part_of_a_training_may_be_by_the_elbo():
    params = load_params().train.model_copy(update={"objective": "dreg", "epochs": 10, "elbo_epochs": 7})
    parts = [part_of(params, epoch) for epoch in (1, 7, 8, 10)]
    assert [(part.objective, part.epochs) for part in parts] == [("elbo", 7), ("elbo", 7), ("dreg", 3), ("dreg", 3)]
    assert parts[0] == parts[1] != parts[2] == parts[3]


def test_a_training_of_one_part_is_that_part():
    params = load_params().train
    assert [part_of(params, epoch) for epoch in (1, params.epochs)] == [params, params]


def test_the_objective_that_params_name_is_waited_for_as_beta_is():
    params = load_params().train.model_copy(update={"objective": "iwae", "elbo_epochs": 3, "warmup_epochs": 4})
    assert [is_warm(params, epoch) for epoch in range(2, 7)] == [False, False, False, True, True]
    params = params.model_copy(update={"warmup_epochs": 0})
    assert [is_warm(params, epoch) for epoch in range(2, 7)] == [False, False, True, True, True]


def test_a_warm_up_that_outlasts_the_training_is_warned_of_with_where_beta_ends():
    assert warning(epochs=5, warmup_epochs=8, beta=2.0) == (
        "params.yaml: train.warmup_epochs is 8 while train.epochs is 5: beta ends at 1 and never reaches train.beta, "
        "2; expected train.warmup_epochs below train.epochs"
    )
    assert "beta ends at 0.8 " in warning(epochs=5, warmup_epochs=5, beta=1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"warmup_epochs": 4},
        {"warmup_epochs": 0},
        {"warmup_epochs": 9, "beta": 0.0},
        {"warmup_epochs": 9, "objective": "autoencoder"},
    ],
)
def test_where_beta_gets_to_its_value_or_has_none_nothing_is_said(changes):
    assert warning(epochs=5, **changes) is None
