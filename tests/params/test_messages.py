import math

import pytest
from changed_params import REAL, changed, message

OBJECTIVES = "elbo, stl, iwae, dreg, tc, wake_sleep or autoencoder"
SOURCES = "mnist-5k, mnist, fashion-mnist, kmnist, emnist, cifar10, svhn, celeba, images or array"
PRIORS = "standard, mixture, vamp, per_class or flow"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train.beta": -1.0}, "train.beta is -1.0; expected a number >= 0"),
        ({"train.learning_rate": 0}, "train.learning_rate is 0; expected a number > 0"),
        ({"train.ema_decay": 1.0}, "train.ema_decay is 1.0; expected a number < 1"),
        ({"train.epochs": 0}, "train.epochs is 0; expected a whole number >= 1"),
        ({"train.seed": -1}, "train.seed is -1; expected a whole number >= 0"),
        ({"train.seed": 2**32}, "train.seed is 4294967296; expected a whole number <= 4294967295"),
        ({"train.early_stopping_epochs": 0}, "train.early_stopping_epochs is 0; expected a whole number >= 1, or null"),
        (
            {"model.sigma": 0.0},
            "model.sigma is 0.0; expected a number >= 0.001, or one of learned, optimal or per_pixel",
        ),
        ({"model.likelihood_components": 0}, "model.likelihood_components is 0; expected a whole number >= 1"),
        ({"model.prior_components": 0}, "model.prior_components is 0; expected a whole number >= 1"),
        ({"model.likelihood_components": 101}, "model.likelihood_components is 101; expected a whole number <= 100"),
        ({"model.hidden": [400, 0]}, "model.hidden.1 is 0; expected a whole number >= 1"),
        ({"prepare.image_size": [0, 28]}, "prepare.image_size.0 is 0; expected a whole number >= 1"),
        ({"prepare.val_fraction": 1.0}, "prepare.val_fraction is 1.0; expected a number < 1"),
        ({"export.max_parity_error": 0.0}, "export.max_parity_error is 0.0; expected a number > 0"),
        ({"export.score_samples": 0}, "export.score_samples is 0; expected a whole number >= 1"),
        ({"export.detection_images": 1}, "export.detection_images is 1; expected a whole number >= 2"),
        ({"export.min_speedup": 0}, "export.min_speedup is 0; expected a number > 0, or null"),
        ({"export.max_quality_loss": -0.1}, "export.max_quality_loss is -0.1; expected a number >= 0"),
        ({"evaluate.ais_images": -1}, "evaluate.ais_images is -1; expected a whole number >= 0"),
        ({"evaluate.ais_schedule": "cubic"}, "evaluate.ais_schedule is 'cubic'; expected one of linear or sigmoid"),
        ({"health.min_active_share": 1.5}, "health.min_active_share is 1.5; expected a number <= 1, or null"),
        ({"health.max_prior_gap": -0.1}, "health.max_prior_gap is -0.1; expected a number >= 0, or null"),
        ({"export.max_latency_ms": 0}, "export.max_latency_ms is 0; expected a number > 0, or null"),
        (
            {"export.registered_model": "vae/1"},
            "export.registered_model is 'vae/1'; expected a name of letters, digits, . _ and -, or null",
        ),
        ({"evaluate.importance_samples": 0}, "evaluate.importance_samples is 0; expected a whole number >= 1"),
        (
            {"evaluate.importance_samples": 10**20},
            f"evaluate.importance_samples is {10**20}; expected a whole number <= 1000000",
        ),
        ({"model.latent_dim": 10**11}, "model.latent_dim is 100000000000; expected a whole number <= 65536"),
        ({"model.hidden": [10**11]}, "model.hidden.0 is 100000000000; expected a whole number <= 65536"),
        ({"train.beta": 1e308}, "train.beta is 1e+308; expected a number <= 1000000"),
        ({"train.learning_rate": 1e30}, "train.learning_rate is 1e+30; expected a number <= 1000000000"),
        ({"train.free_bits": 1e30}, "train.free_bits is 1e+30; expected a number <= 1000"),
        ({"train.warmup_epochs": 10**20}, f"train.warmup_epochs is {10**20}; expected a whole number <= 1000000000"),
        ({"evaluate.ais_images": 10**20}, f"evaluate.ais_images is {10**20}; expected a whole number <= 1000000000"),
        ({"evaluate.ais_steps": 10**9}, f"evaluate.ais_steps is {10**9}; expected a whole number <= 1000000"),
        ({"evaluate.ais_chains": 10**9}, f"evaluate.ais_chains is {10**9}; expected a whole number <= 1000000"),
        (
            {"evaluate.amortisation_images": 10**20},
            f"evaluate.amortisation_images is {10**20}; expected a whole number <= 1000000000",
        ),
        (
            {"evaluate.quality_images": 10**20},
            f"evaluate.quality_images is {10**20}; expected a whole number <= 1000000000",
        ),
        ({"train.epochs": 10**20}, f"train.epochs is {10**20}; expected a whole number <= 1000000000"),
        ({"model.flow_hidden": []}, "model.flow_hidden is []; expected at least one entry"),
    ],
)
def test_a_value_out_of_range_is_named(changes, expected):
    assert message(changed(changes)) == f"params.yaml: {expected}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train.epochs": "ten"}, "train.epochs is 'ten'; expected a whole number"),
        ({"train.epochs": 10.5}, "train.epochs is 10.5; expected a whole number"),
        ({"train.epochs": True}, "train.epochs is True; expected a whole number"),
        ({"train.epochs": None}, "train.epochs is None; expected a whole number"),
        ({"train.beta": "1"}, "train.beta is '1'; expected a number"),
        ({"train.beta": True}, "train.beta is True; expected a number"),
        ({"train.beta": [1.0]}, "train.beta is [1.0]; expected a number"),
        ({"model.hidden": 400}, "model.hidden is 400; expected a list, such as [400, 400]"),
        ({"model.hidden": ["wide"]}, "model.hidden.0 is 'wide'; expected a whole number"),
        (
            {"model.sigma": "learnt"},
            "model.sigma is 'learnt'; expected a number, or one of learned, optimal or per_pixel; "
            "did you mean learned?",
        ),
        (
            {"model.likelihood": "continous_bernoulli"},
            "model.likelihood is 'continous_bernoulli'; expected one of bernoulli, continuous_bernoulli, gaussian, "
            "discretized_logistic or logistic_mixture; did you mean continuous_bernoulli?",
        ),
        (
            {"model.posterior": "IAF"},
            "model.posterior is 'IAF'; expected one of diagonal, iaf or coupling; did you mean iaf?",
        ),
        (
            {"model.network": "CNN"},
            "model.network is 'CNN'; expected one of mlp, conv or ladder; did you mean conv?",
        ),
        *(
            ({"prepare.source": source}, f"prepare.source is '{source}'; expected one of {SOURCES}{guess}")
            for source, guess in {"imagenet": "", "fashion": "; did you mean fashion-mnist?"}.items()
        ),
        ({"model.network": "unet"}, "model.network is 'unet'; expected one of mlp, conv or ladder"),
        (
            {"train.device": "gpu"},
            "train.device is 'gpu'; expected one of auto, cpu or cuda; did you mean cuda?",
        ),
        (
            {"train.device": "cuda:0"},
            "train.device is 'cuda:0'; expected one of auto, cpu or cuda; did you mean cuda?",
        ),
        *(
            (
                {"train.objective": other},
                f"train.objective is '{other}'; expected one of {OBJECTIVES}; did you mean {name}?",
            )
            for other, name in {"ae": "autoencoder", "VAE": "elbo", "beta-VAE": "elbo", "beta_tcvae": "tc"}.items()
        ),
        ({"model.prior": "normal"}, f"model.prior is 'normal'; expected one of {PRIORS}; did you mean standard?"),
        ({"model.prior": "RealNVP"}, f"model.prior is 'RealNVP'; expected one of {PRIORS}; did you mean flow?"),
        (
            {"model.posterior": "realnvp"},
            "model.posterior is 'realnvp'; expected one of diagonal, iaf or coupling; did you mean coupling?",
        ),
        (
            {"train.early_stopping_epochs": "no"},
            "train.early_stopping_epochs is 'no'; expected a whole number, or null",
        ),
        (
            {"export.champion_metric": "kl"},
            "export.champion_metric is 'kl'; expected one of nll_iw, elbo or bits_per_dim",
        ),
        ({"export.max_nll": "low"}, "export.max_nll is 'low'; expected a number, or null"),
        ({"prepare.root": 3}, "prepare.root is 3; expected text"),
        ({"prepare.held_out_labels": 4}, "prepare.held_out_labels is 4; expected a list, such as [4]"),
        ({"prepare.held_out_labels": [4.5]}, "prepare.held_out_labels.0 is 4.5; expected text, or a whole number"),
        ({"prepare.held_out_labels": [4, 5, 4]}, "prepare.held_out_labels is [4, 5, 4]; expected each class once"),
        ({"prepare.held_out_labels": ["4", 4]}, "prepare.held_out_labels is ['4', 4]; expected each class once"),
        ({"model.flow_hidden": 9}, "model.flow_hidden is 9; expected a list, such as [64]"),
        ({"prepare.root": ""}, "prepare.root is ''; expected some text"),
        ({"prepare.image_size": 28}, "prepare.image_size is 28; expected a list, such as [28, 28], or null"),
        ({"prepare.image_size": [28]}, "prepare.image_size.1 is missing; expected a value (a list may be too short)"),
        ({"prepare.image_size": [28, 28, 1]}, "prepare.image_size is [28, 28, 1]; expected fewer entries, or null"),
    ],
)
def test_a_value_of_another_type_is_named(changes, expected):
    assert message(changed(changes)) == f"params.yaml: {expected}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["train.beta", "train.learning_rate", "model.sigma", "export.max_parity_error"])
def test_a_number_that_is_not_finite_is_refused(name, value):
    expected = message(changed({name: value}))
    assert expected.startswith(f"params.yaml: {name} is {value}; expected a ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.bata", "train.bata is not a known param; did you mean train.beta?"),
        ("train.learning-rate", "train.learning-rate is not a known param; did you mean train.learning_rate?"),
    ],
)
def test_an_unknown_param_is_answered_with_the_nearest(name, expected):
    assert message(changed({name: 1.0})) == f"params.yaml: {expected}"


def test_an_unknown_param_that_is_near_to_none_is_answered_with_all():
    unknown, known = "xyzzy" * 5, ", ".join(f"export.{name}" for name in REAL["export"])
    expected = f"export.{unknown} is not a known param; expected one of {known}"
    assert message(changed({f"export.{unknown}": 1})) == f"params.yaml: {expected}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trian", "trian is not a known param; did you mean train?"),
        ("zzz", "zzz is not a known param; expected one of prepare, model, train, evaluate, health, export"),
    ],
)
def test_an_unknown_section_is_answered_with_the_nearest(name, expected):
    assert message({**REAL, name: {}}) == f"params.yaml: {expected}"


def test_a_misspelled_section_is_told_before_the_one_that_is_missing_for_it():
    misspelled = {"evaluat" if name == "evaluate" else name: section for name, section in REAL.items()}
    assert message(misspelled) == "params.yaml: evaluat is not a known param; did you mean evaluate?"


def test_a_missing_section_and_a_missing_param_are_named():
    without_section = {name: section for name, section in REAL.items() if name != "export"}
    assert message(without_section).startswith("params.yaml: export is missing; expected a ")
    without_param = changed({})
    del without_param["train"]["beta"]
    assert message(without_param) == "params.yaml: train.beta is missing; expected a value"


def test_every_list_has_an_example():
    lists = [f"{section}.{name}" for section, found in REAL.items() for name in found if isinstance(found[name], list)]
    assert [name for name in lists if "a list, such as [" not in message(changed({name: 3.5}))] == []


@pytest.mark.parametrize("section", [None, 3, "fast", [1]])
def test_a_section_that_holds_no_params_is_named(section):
    expected = f"params.yaml: train is {section!r}; expected a section of named params"
    assert message({**REAL, "train": section}) == expected
