import pytest

from pipeline.params import load_params
from pipeline.training.schedule import check_choice, check_warmup, learning_rate_factor, warmed_up


def warning(**changes):
    return check_warmup(load_params().train.model_copy(update=changes))


def test_cosine_falls_from_one_to_zero_and_is_half_way_in_the_middle():
    assert [learning_rate_factor("cosine", step, 10) for step in (0, 5, 10)] == pytest.approx([1, 0.5, 0])


def test_constant_stays():
    assert {learning_rate_factor("constant", step, 10) for step in range(11)} == {1.0}


def test_beta_rises_linearly_from_zero():
    assert [warmed_up(2.0, epoch, 4) for epoch in range(1, 7)] == [0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert warmed_up(2.0, 1, 0) == 2.0


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


def test_where_epochs_are_chosen_by_another_bound_than_is_trained_the_better_choice_is_named():
    params = load_params().train
    several = params.model_copy(update={"objective": "iwae"})
    assert check_choice(several) == (
        "params.yaml: train.keep_epoch is 'best' while train.objective is 'iwae': epochs are compared by the bound of "
        "one sample, which may fall while that of several rises; better train.keep_epoch: last and "
        "train.early_stopping_epochs: null"
    )
    stopping = several.model_copy(update={"keep_epoch": "last", "early_stopping_epochs": 3, "objective": "dreg"})
    assert check_choice(stopping).startswith(
        "params.yaml: train.early_stopping_epochs is 3 while train.objective is 'dreg'"
    )
    assert check_choice(several.model_copy(update={"keep_epoch": "last"})) is None
    assert check_choice(params) is None
