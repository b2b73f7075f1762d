import pytest

from pipeline.errors import UserError
from pipeline.params import load_params
from pipeline.training.suitability import check_likelihood

SHARES = {"binary": 1.0, "near-binary": 0.81, "grey": 0.1, "colour": 0.0}


def check(likelihood, kind, binarize="none", objective="elbo"):
    params = load_params()
    changed = params.model_copy(
        update={
            "model": params.model.model_copy(update={"likelihood": likelihood}),
            "train": params.train.model_copy(update={"binarize": binarize, "objective": objective}),
        }
    )
    return check_likelihood(changed, {"kind": kind, "binary_fraction": SHARES[kind]})


@pytest.mark.parametrize(
    ("likelihood", "kind", "problem", "better"),
    [
        ("bernoulli", "grey", "90% of the values are neither 0 nor 255", "gaussian, discretized_logistic, logistic_"),
        ("bernoulli", "near-binary", "19% of the values are neither 0 nor 255", "bernoulli (train.binarize: dynamic)"),
        ("bernoulli", "colour", "100% of the values are neither 0 nor 255", "logistic_mixture, discretized_logistic"),
        ("gaussian", "binary", "all values are 0 or 255", "bernoulli"),
        ("continuous_bernoulli", "binary", "all values are 0 or 255", "bernoulli"),
        ("logistic_mixture", "binary", "all values are 0 or 255", "bernoulli"),
    ],
)
def test_a_likelihood_that_does_not_suit_is_refused_with_the_better_choice(likelihood, kind, problem, better):
    with pytest.raises(UserError) as error:
        check(likelihood, kind)
    message = str(error.value)
    assert message.startswith(
        f"params.yaml: model.likelihood is '{likelihood}' with train.binarize: none, but {problem}"
    )
    assert f"; expected model.likelihood: {better}" in message
    assert "\n" not in message


@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_images_in_colour_are_not_binarised(binarize):
    with pytest.raises(UserError) as error:
        check("bernoulli", "colour", binarize)
    assert str(error.value) == (
        f"params.yaml: model.likelihood is 'bernoulli' with train.binarize: {binarize}, but the images are in colour: "
        "what is measured would be eight colours drawn from them, not the images; "
        "expected model.likelihood: logistic_mixture, discretized_logistic or gaussian, with train.binarize: none"
    )


def test_of_near_binary_values_a_warning_names_the_better_choice_than_a_bell():
    warning = check("gaussian", "near-binary")
    assert "19% of the values are" in warning
    assert warning.endswith("; better model.likelihood: bernoulli (train.binarize: dynamic) or continuous_bernoulli")


def test_a_plain_auto_encoder_claims_no_likelihood_and_is_only_warned():
    for kind in ("near-binary", "grey"):
        assert "better model.likelihood" in check("bernoulli", kind, objective="autoencoder")


@pytest.mark.parametrize(
    ("likelihood", "kind", "binarize"),
    [
        ("bernoulli", "binary", "none"),
        ("bernoulli", "grey", "dynamic"),
        ("bernoulli", "near-binary", "static"),
        ("continuous_bernoulli", "near-binary", "none"),
        ("discretized_logistic", "near-binary", "none"),
        ("gaussian", "grey", "none"),
        ("logistic_mixture", "colour", "none"),
    ],
)
def test_what_suits_passes_without_a_word(likelihood, kind, binarize):
    assert check(likelihood, kind, binarize) is None
