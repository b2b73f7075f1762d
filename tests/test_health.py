import dataclasses
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.health import Sizes, examine, read_verdict, unhealthy, verdict
from pipeline.params import load_params

LIMITS = load_params(Path(__file__).parents[1] / "params.yaml").health.model_copy(
    update={
        "min_active_share": 0.25,
        "max_train_test_gap": 0.2,
        "max_bound_drift": 0.5,
        "max_prior_gap": 0.5,
        "max_copied_share": 0.05,
    }
)
SIZES = Sizes(latent_dim=12, values=784, importance_samples=5000)
HEALTHY = {
    "test/active_units": 12,
    "test/train_test_gap": 6.0,
    "test/nll_iw2500": 102.2,
    "test/nll_iw5000": 102.1,
    "test/bits_per_dim": 0.188,  # 102.2 nats
    "test/marginal_kl_fitted": 1.5,
    "test/kl": 20.0,
    "test/memorisation_copies": 0.02,
    "test/memorisation_test_copies": 0.01,
}


def missed(**changes):
    metrics = HEALTHY | {f"test/{name}": value for name, value in changes.items()}
    return [check.name for check in examine(metrics, SIZES, LIMITS) if not check.healthy]


def test_a_healthy_model_misses_nothing():
    checks = examine(HEALTHY, SIZES, LIMITS)
    names = ["collapsed_units", "train_test_gap", "unconverged_bound", "prior_hole", "memorisation"]
    assert [check.name for check in checks] == names
    assert unhealthy(checks) == ""
    assert verdict(checks)["healthy"]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"active_units": 2}, "collapsed_units"),
        ({"train_test_gap": 21.0}, "train_test_gap"),
        ({"nll_iw2500": 102.7}, "unconverged_bound"),
        ({"marginal_kl_fitted": 10.5}, "prior_hole"),
        ({"memorisation_copies": 0.07}, "memorisation"),
    ],
)
def test_each_check_has_its_metric(changes, check):
    assert missed(**changes) == [check]


def test_a_limit_is_within_the_limit():
    assert missed(active_units=3, marginal_kl_fitted=10.0) == []


def test_of_a_kl_below_a_nat_no_share_is_taken():
    assert missed(kl=0.001, marginal_kl_fitted=0.01) == []


def test_a_density_is_measured_by_the_nats_of_its_stored_values():
    assert missed(nll_iw2500=-1999.95, nll_iw5000=-2000.0) == []
    assert missed(nll_iw2500=-1998.0, nll_iw5000=-2000.0) == ["unconverged_bound"]


def test_the_bound_of_one_sample_is_not_judged_to_have_converged():
    metrics = {"test/nll_iw1": 107.0, "test/bits_per_dim": 0.197}
    assert examine(metrics, dataclasses.replace(SIZES, importance_samples=1), LIMITS) == []
    both = metrics | {"test/nll_iw2": 106.6}
    [check] = examine(both, dataclasses.replace(SIZES, importance_samples=2), LIMITS)
    assert (check.name, check.healthy) == ("unconverged_bound", True)


def test_data_that_hold_equal_images_are_no_memorisation():
    assert missed(memorisation_copies=0.4, memorisation_test_copies=0.4) == []


@pytest.mark.parametrize("limit", list(type(LIMITS).model_fields))
def test_null_leaves_a_check_out(limit):
    assert len(examine(HEALTHY, SIZES, LIMITS.model_copy(update={limit: None}))) == 4


def test_what_was_not_measured_is_not_judged():
    checks = examine({"test/recon": -80.0, "test/active_units": 0}, SIZES, LIMITS)
    assert [(check.name, check.healthy) for check in checks] == [("collapsed_units", False)]


def test_it_is_said_in_one_line_what_was_found_and_what_to_try():
    checks = examine(HEALTHY | {"test/active_units": 0, "test/nll_iw2500": 105.1}, SIZES, LIMITS)
    told = unhealthy(checks)
    assert "\n" not in told
    assert "0 of 12 latent dimensions are active, expected a share of at least 0.25 (try a smaller train.beta" in told
    assert "moved the bound by 3 nats, expected at most 0.5 (try more evaluate.importance_samples)" in told


def test_a_verdict_comes_back_from_its_file(tmp_path):
    checks = examine(HEALTHY, SIZES, LIMITS)
    write_json(tmp_path / "health.json", verdict(checks))
    assert read_verdict(tmp_path / "health.json") == checks


@pytest.mark.parametrize("content", [{}, {"checks": []}, {"checks": {"a": {}}}, {"checks": {"a": 1}}])
def test_a_file_that_is_no_verdict_is_named(tmp_path, content):
    write_json(tmp_path / "health.json", content)
    with pytest.raises(UserError, match=r"health.json: not what evaluate writes"):
        read_verdict(tmp_path / "health.json")
