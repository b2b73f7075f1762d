import pytest
from changed_params import changed, message

from pipeline.params import check_params


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model.prior": "per_class"},
            "model.prior is 'per_class' while model.condition is 'none'; "
            "expected model.condition: label, or model.prior: standard",
        ),
        (
            {"model.prior": "per_class", "model.condition": "label", "train.objective": "tc"},
            "model.prior is 'per_class' while train.objective is 'tc', which wants one p(z) for all images, of "
            "independent dimensions; expected model.prior: standard, or train.objective: elbo",
        ),
        (
            {"model.condition": "lable"},
            "model.condition is 'lable'; expected one of none or label; did you mean label?",
        ),
    ],
)
def test_a_condition_that_does_not_fit_is_refused_by_name(changes, expected):
    assert message(changed(changes)) == f"params.yaml: {expected}"


WAKE_SLEEP = {"train.objective": "wake_sleep", "train.warmup_epochs": 0}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"train.beta": 4.0}, "train.beta is 4.0 while train.objective is 'wake_sleep'; expected train.beta: 1.0, or"),
        (
            {"train.warmup_epochs": 5},
            "train.warmup_epochs is 5 while train.objective is 'wake_sleep'; expected train.warm",
        ),
        (
            {"model.prior": "vamp"},
            "model.prior is 'vamp' while train.objective is 'wake_sleep'; expected model.prior: st",
        ),
        (
            {"model.likelihood": "logistic_mixture", "train.binarize": "none"},
            "model.likelihood is 'logistic_mixture' while train.objective is 'wake_sleep'; expected model.likelihood: "
            "bernoulli or gaussian, or train.objective: elbo",
        ),
        (
            {"model.likelihood": "gaussian", "model.sigma": "optimal", "train.binarize": "none"},
            "model.sigma is 'optimal' while train.objective is 'wake_sleep', whose dreams are of no step's images; ",
        ),
    ],
)
def test_wake_sleep_refuses_what_it_cannot_dream_of(changes, found):
    assert check_params(changed(WAKE_SLEEP), "params.yaml").train.objective == "wake_sleep"
    assert message(changed(WAKE_SLEEP | changes)).startswith(f"params.yaml: {found}")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model.likelihood": "gaussian"},
            "train.binarize is 'dynamic' while model.likelihood is 'gaussian'; "
            "expected train.binarize: none, or model.likelihood: bernoulli",
        ),
        (
            {"train.objective": "iwae", "train.beta": 4.0},
            "train.beta is 4.0 while train.objective is 'iwae', whose bound has no beta; "
            "expected train.beta: 1, or train.objective: elbo",
        ),
        (
            {"train.objective": "dreg", "train.compile": "always"},
            "train.compile is 'always' while train.objective is 'dreg', whose gradient cannot be compiled; "
            "expected train.compile: auto or never",
        ),
        (
            {"export.sample_from": "aggregate"},
            "export.sample_from is 'aggregate' while evaluate.aggregate_components is 0, which fits no density; "
            "expected evaluate.aggregate_components above 0 (50, say), or export.sample_from: prior",
        ),
        (
            {"train.free_bits": 0.1, "model.prior": "vamp"},
            "train.free_bits is 0.1 while train.objective is 'elbo' and model.prior is 'vamp'; "
            "expected train.free_bits: 0, or elbo and standard or per_class, where dimensions have a KL",
        ),
        (
            {"train.sampled_kl": True, "train.free_bits": 0.5},
            "train.sampled_kl is true while train.objective is 'elbo' and train.free_bits is 0.5; "
            "expected train.sampled_kl: false, or train.objective: elbo without free bits",
        ),
        (
            {"train.objective": "tc", "train.devices": 2},
            "train.devices * train.nodes is 2 while train.objective is 'tc', whose total correlation is that of a "
            "whole batch; expected one process, or train.objective: elbo without free bits",
        ),
        (
            {"train.free_bits": 0.1, "train.nodes": 3},
            "train.devices * train.nodes is 3 while train.free_bits is 0.1, held against each dimension's KL of a "
            "whole batch; expected one process, or train.objective: elbo without free bits",
        ),
        (
            {"model.prior": "mixture", "train.objective": "tc"},
            "model.prior is 'mixture' while train.objective is 'tc', which wants one p(z) for all images, of "
            "independent dimensions; expected model.prior: standard, or train.objective: elbo",
        ),
        (
            {"train.beta": 4, "train.objective": "autoencoder"},
            "train.beta is 4.0 while train.objective is 'autoencoder', which has no KL; "
            "expected train.beta: 1, or train.objective: elbo",
        ),
        (
            {"model.prior": "vamp", "train.objective": "autoencoder"},
            "model.prior is 'vamp' while train.objective is 'autoencoder', which has no prior; "
            "expected model.prior: standard, or train.objective: elbo",
        ),
        (
            {"model.prior": "flow", "train.objective": "autoencoder"},
            "model.prior is 'flow' while train.objective is 'autoencoder', which has no prior; "
            "expected model.prior: standard, or train.objective: elbo",
        ),
        (
            {"model.latent_dim": 1, "model.prior": "flow"},
            "model.latent_dim is 1 while model.prior is 'flow', which moves dimensions by one another; "
            "expected model.latent_dim >= 2, or model.prior: standard",
        ),
        (
            {"model.latent_dim": 1, "model.posterior": "iaf"},
            "model.latent_dim is 1 while model.posterior is 'iaf', which moves dimensions by one another; "
            "expected model.latent_dim >= 2, or model.posterior: diagonal",
        ),
        (
            {"model.prior": "vamp", "model.posterior": "coupling"},
            "model.posterior is 'coupling' while model.prior is 'vamp', a mean of Gaussian posteriors; "
            "expected model.posterior: diagonal, or model.prior: flow or mixture",
        ),
        *(
            (
                {"model.posterior": "iaf", "train.objective": objective},
                f"train.objective is '{objective}' while model.posterior is 'iaf'; "
                "expected train.objective: elbo or iwae, or model.posterior: diagonal",
            )
            for objective in ("stl", "dreg", "tc", "autoencoder")
        ),
        (
            {"train.free_bits": 0.1, "model.posterior": "coupling"},
            "train.free_bits is 0.1 while model.posterior is 'coupling', whose dimensions have no KL of their own; "
            "expected train.free_bits: 0, or model.posterior: diagonal",
        ),
        (
            {"train.free_bits": 0.1, "model.prior": "flow"},
            "train.free_bits is 0.1 while train.objective is 'elbo' and model.prior is 'flow'; "
            "expected train.free_bits: 0, or elbo and standard or per_class, where dimensions have a KL",
        ),
        (
            {"model.network": "conv", "model.hidden": []},
            "model.hidden is []; expected at least one stage of channels for model.network: conv",
        ),
        (
            {"model.residual_blocks": 2},
            "model.residual_blocks is 2 while model.network is 'mlp' and model.activation is 'silu'; expected "
            "model.residual_blocks: 0, or model.network: conv and model.activation: silu, relu or tanh",
        ),
        (
            {"model.network": "ladder", "model.latent_groups": 5},
            "model.latent_dim is 12 while model.latent_groups is 5; expected a multiple of it "
            "for model.network: ladder",
        ),
        (
            {"model.network": "ladder", "model.group_network": "conv", "model.hidden": [8, 8, 8]},
            "model.latent_groups is 4 while model.hidden has 3 stages; expected as many groups at each, "
            "for model.group_network: conv",
        ),
        (
            {"model.network": "ladder", "model.hidden": []},
            "model.hidden is []; expected at least one layer of units for model.network: ladder",
        ),
        (
            {"model.network": "ladder", "model.prior": "vamp"},
            "model.prior is 'vamp' while model.network is 'ladder'; "
            "expected model.prior: standard, or model.network: mlp",
        ),
        (
            {"model.network": "ladder", "model.posterior": "iaf"},
            "model.posterior is 'iaf' while model.network is 'ladder'; "
            "expected model.posterior: diagonal, or model.network: mlp",
        ),
        (
            {"model.network": "ladder", "train.objective": "stl"},
            "train.objective is 'stl' while model.network is 'ladder'; "
            "expected train.objective: elbo or iwae or autoencoder, or model.network: mlp",
        ),
        (
            {"prepare.val_fraction": 0.5, "prepare.test_fraction": 0.5},
            "prepare.val_fraction + prepare.test_fraction is 1; expected less than 1",
        ),
    ],
)
def test_params_that_contradict_each_other_are_refused(changes, expected):
    assert message(changed(changes)) == f"params.yaml: {expected}"


def test_wake_sleep_may_be_told_the_class():
    model = check_params(changed(WAKE_SLEEP | {"model.condition": "label"}), "params.yaml").model
    assert model.condition == "label"


def test_an_mlp_without_hidden_layers_is_allowed():
    assert check_params(changed({"model.hidden": []}), "params.yaml").model.hidden == ()
