import dataclasses
import re
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.health import Sizes, examine, read_verdict, unhealthy, verdict
from pipeline.params import check_params, load_params

SHIPPED = load_params(Path(__file__).parents[1] / "params.yaml")


def limited(**limits):
    return SHIPPED.model_copy(update={"health": SHIPPED.health.model_copy(update=limits)})


PARAMS = limited(
    min_active_share=0.25, max_train_test_gap=0.2, max_bound_drift=0.5, max_prior_gap=0.5, max_copied_share=0.05
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
    return [check.name for check in examine(metrics, SIZES, PARAMS) if not check.healthy]


def test_a_healthy_model_misses_nothing():
    checks = examine(HEALTHY, SIZES, PARAMS)
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


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"train_test_gap": 20.45}, "20.02%, expected at most 20%"),
        ({"marginal_kl_fitted": 10.004}, "50.02% of their KL, expected at most 50%"),
    ],
)
def test_a_share_just_beyond_its_limit_is_told_from_it(changes, found):
    metrics = HEALTHY | {f"test/{name}": value for name, value in changes.items()}
    assert found in unhealthy(examine(metrics, SIZES, PARAMS))


def test_a_limit_is_within_the_limit():
    assert missed(active_units=3, marginal_kl_fitted=10.0) == []


def test_of_a_kl_below_a_nat_no_share_is_taken():
    assert missed(kl=0.001, marginal_kl_fitted=0.01) == []


@pytest.mark.parametrize("bits", [0.0, -1e-7])
def test_of_an_image_that_costs_nothing_no_share_is_taken(bits):
    assert missed(bits_per_dim=bits, train_test_gap=0.05) == []
    assert missed(bits_per_dim=bits, train_test_gap=5.0) == ["train_test_gap"]


def test_a_density_is_measured_by_the_nats_of_its_stored_values():
    assert missed(nll_iw2500=-1999.95, nll_iw5000=-2000.0) == []
    assert missed(nll_iw2500=-1998.0, nll_iw5000=-2000.0) == ["unconverged_bound"]


def test_the_bound_of_one_sample_is_not_judged_to_have_converged():
    metrics = {"test/nll_iw1": 107.0, "test/bits_per_dim": 0.197}
    assert examine(metrics, dataclasses.replace(SIZES, importance_samples=1), PARAMS) == []
    both = metrics | {"test/nll_iw2": 106.6}
    [check] = examine(both, dataclasses.replace(SIZES, importance_samples=2), PARAMS)
    assert (check.name, check.healthy) == ("unconverged_bound", True)


def test_data_that_hold_equal_images_are_no_memorisation():
    assert missed(memorisation_copies=0.4, memorisation_test_copies=0.4) == []


@pytest.mark.parametrize("limit", list(type(SHIPPED.health).model_fields))
def test_null_leaves_a_check_out(limit):
    assert len(examine(HEALTHY, SIZES, limited(**{limit: None}))) == 4


@pytest.mark.parametrize(
    ("found", "check"),
    [
        ({"active_units": 1}, "collapsed_units"),
        ({"train_test_gap": 11.0}, "train_test_gap"),
        ({"nll_iw2500": 102.65}, "unconverged_bound"),
        ({"marginal_kl_fitted": 10.5}, "prior_hole"),
        ({"memorisation_copies": 0.07}, "memorisation"),
    ],
)
def test_the_limits_of_params_yaml_find_what_is_unhealthy(found, check):
    metrics = HEALTHY | {f"test/{name}": value for name, value in found.items()}
    assert all(check.healthy for check in examine(HEALTHY, SIZES, SHIPPED))
    assert [check.name for check in examine(metrics, SIZES, SHIPPED) if not check.healthy] == [check]


ILL = {
    "test/active_units": 0,
    "test/train_test_gap": 50.0,
    "test/nll_iw2500": 110.0,
    "test/marginal_kl_fitted": 19.0,
    "test/memorisation_copies": 0.9,
}
OTHER = {
    "train.beta": 0.7,
    "train.warmup_epochs": 33,
    "train.free_bits": 0.2,
    "train.epochs": 70,
    "train.early_stopping_epochs": 5,
    "model.latent_dim": 6,
    "model.hidden": [30, 30],
    "model.prior": "flow",
    "evaluate.importance_samples": 6000,
}
SETTINGS = {
    "default": {},
    "warm": {"train.warmup_epochs": 0},
    "flow posterior": {"model.posterior": "iaf"},
    "iwae": {"train.objective": "iwae"},
    "dreg": {"train.objective": "dreg"},
    "wake_sleep": {"train.objective": "wake_sleep", "train.warmup_epochs": 0},
    "autoencoder": {"train.objective": "autoencoder"},
    "total correlation": {"train.objective": "tc"},
    "ladder": {"model.network": "ladder", "model.latent_groups": 3},
    "mixture": {"model.prior": "mixture"},
    "vamp": {"model.prior": "vamp"},
    "classes": {"model.condition": "label", "model.prior": "per_class"},
    "two ranks": {"train.devices": 2},
}


def with_settings(settings):
    content = SHIPPED.model_dump(mode="json")
    for name, value in settings.items():
        section, field = name.split(".")
        content[section][field] = value
    return check_params(content, "params.yaml")


@pytest.mark.parametrize("name", SETTINGS)
def test_no_param_is_advised_that_the_others_forbid(name):
    for check in examine(HEALTHY | ILL, SIZES, with_settings(SETTINGS[name])):
        assert not check.healthy
        assert check.advice
        for param in re.findall(r"(?:train|model|evaluate)\.\w+", check.advice):
            with_settings(SETTINGS[name] | {param: OTHER[param]})  # refuses what does not go together


@pytest.mark.parametrize(
    ("name", "check", "advice"),
    [
        (
            "default",
            "collapsed_units",
            "a smaller train.beta, longer train.warmup_epochs, train.free_bits or a smaller model.latent_dim",
        ),
        (
            "flow posterior",
            "collapsed_units",
            "a smaller train.beta, longer train.warmup_epochs or a smaller model.latent_dim",
        ),
        ("dreg", "collapsed_units", "longer train.warmup_epochs or a smaller model.latent_dim"),
        ("wake_sleep", "collapsed_units", "a smaller model.latent_dim"),
        ("autoencoder", "collapsed_units", "a smaller model.latent_dim"),
        ("ladder", "prior_hole", "more train.epochs if the ELBO still rose or a larger train.beta"),
        (
            "vamp",
            "prior_hole",
            "more train.epochs if the ELBO still rose, a larger train.beta or model.prior: flow",
        ),
        (
            "two ranks",
            "collapsed_units",
            "a smaller train.beta, longer train.warmup_epochs or a smaller model.latent_dim",
        ),
    ],
)
def test_what_is_advised_suits_what_was_trained(name, check, advice):
    checks = {found.name: found for found in examine(HEALTHY | ILL, SIZES, with_settings(SETTINGS[name]))}
    assert checks[check].advice == advice


def test_what_was_not_measured_is_not_judged():
    checks = examine({"test/recon": -80.0, "test/active_units": 0}, SIZES, PARAMS)
    assert [(check.name, check.healthy) for check in checks] == [("collapsed_units", False)]


def test_it_is_said_in_one_line_what_was_found_and_what_to_try():
    checks = examine(HEALTHY | {"test/active_units": 0, "test/nll_iw2500": 105.1}, SIZES, PARAMS)
    told = unhealthy(checks)
    assert "\n" not in told
    assert "0 of 12 latent dimensions are active, expected a share of at least 0.25 (try a smaller train.beta" in told
    assert "moved the bound by 3 nats, expected at most 0.5 (try more evaluate.importance_samples)" in told


def test_a_verdict_comes_back_from_its_file(tmp_path):
    checks = examine(HEALTHY, SIZES, PARAMS)
    write_json(tmp_path / "health.json", verdict(checks))
    assert read_verdict(tmp_path / "health.json") == checks


@pytest.mark.parametrize("content", [{}, {"checks": []}, {"checks": {"a": {}}}, {"checks": {"a": 1}}])
def test_a_file_that_is_no_verdict_is_named(tmp_path, content):
    write_json(tmp_path / "health.json", content)
    with pytest.raises(UserError, match=r"health.json: not what evaluate writes"):
        read_verdict(tmp_path / "health.json")
