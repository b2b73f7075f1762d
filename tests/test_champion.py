import dataclasses
import math
from pathlib import Path

import pytest

from pipeline.champion import Champion, Decision, Figure, at_most, decide, figure_of, gates_of
from pipeline.errors import UserError
from pipeline.params import load_params
from pipeline.record import Record

PARITY = {
    "decoder_max_abs_error": 8e-7,
    "encoder_max_abs_error": 2e-6,
    "sampler_z_max_abs_error": 2e-7,
    "scorer_score_max_rel_error": 3e-7,
    "scorer_error_max_rel_error": 4e-6,
}
MEASURED = {**{f"export/{name}": error for name, error in PARITY.items()}, "export/sample64_ms": 1.5}
PASSED, FAILED = at_most("nll", 100.0, 120.0), at_most("failed_checks", 1.0, 0.0)
FIGURE = Figure("nll_iw", 103.5, "bc87", "bernoulli", "binarised, seed 0", "5000")
TRAINING = Record(
    "train", "8f14", {"model.likelihood": "bernoulli", "train.binarize": "dynamic"}, {"data_sha256": "bc87"}
)
EVALUATION = Record(
    "evaluate",
    "8f14",
    {"evaluate.importance_samples": 5000, "evaluate.seed": 0},
    metrics={"test/nll_iw5000": 103.5, "test/elbo": -107.8, "test/bits_per_dim": 0.19, "test/failed_checks": 0},
)
PARAMS = load_params(Path(__file__).parents[1] / "params.yaml").export.model_copy(
    update={"max_parity_error": 1e-4, "max_nll": None, "max_latency_ms": 50.0}
)


def figure(**changes):
    return dataclasses.replace(FIGURE, **changes)


def alias(metric, candidate, standing, *gates):
    champion = Champion("2", figure(metric=metric, value=standing))
    return decide(figure(metric=metric, value=candidate), gates, champion).alias


def test_the_first_that_passes_its_gates_is_champion():
    assert decide(FIGURE, [PASSED], None) == Decision("champion", "nll_iw 103.5; there was no champion")


def test_the_first_that_fails_a_gate_is_challenger():
    assert decide(FIGURE, [PASSED, FAILED], None) == Decision("challenger", "gate failed_checks: 1, limit 0")


@pytest.mark.parametrize(
    ("metric", "worse", "better"), [("nll_iw", 103.5, 103.4), ("bits_per_dim", 0.2, 0.1), ("elbo", -108.0, -107.0)]
)
def test_the_better_of_two_is_champion_whatever_the_metrics_direction(metric, worse, better):
    assert alias(metric, better, worse) == "champion"
    assert alias(metric, worse, better) == "challenger"


def test_an_equal_value_leaves_the_champion_where_it_is():
    decision = decide(FIGURE, [PASSED], Champion("2", FIGURE))
    assert decision == Decision("challenger", "nll_iw 103.5, no better than 103.5 of version 2")


def test_a_better_model_that_fails_a_gate_is_challenger():
    assert alias("nll_iw", 90.0, 103.5, PASSED, FAILED) == "challenger"


def test_every_failed_gate_is_named():
    slow = at_most("latency_ms", 75.25, 50.0)
    reason = decide(FIGURE, [FAILED, PASSED, slow], None).reason
    assert reason == "gate failed_checks: 1, limit 0; gate latency_ms: 75.25, limit 50"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data_sha256": "77aa"}, "its data_sha256 is bc87, here 77aa"),
        ({"metric": "elbo"}, "its metric is nll_iw, here elbo"),
        ({"likelihood": "gaussian"}, "its likelihood is bernoulli, here gaussian"),
        ({"test_pixels": "binarised, seed 1"}, "its test_pixels is binarised, seed 0, here binarised, seed 1"),
        ({"importance_samples": "50"}, "its importance_samples is 5000, here 50"),
        ({"condition": "label"}, "its condition is none, here label"),
    ],
)
def test_figures_of_different_measurements_are_not_compared(change, told):
    decision = decide(figure(value=1.0, **change), [PASSED], Champion("2", FIGURE))
    assert decision == Decision("challenger", f"not comparable with the champion, version 2: {told}")


def test_a_champion_without_figures_keeps_its_place():
    decision = decide(FIGURE, [PASSED], Champion("2", None))
    assert decision == Decision("challenger", "the champion, version 2, carries no figure to compare with")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_neither_becomes_champion_nor_is_beaten_as_one(value):
    for metric in ("nll_iw", "elbo"):
        ours = figure(metric=metric, value=value)
        for champion in (None, Champion("2", figure(metric=metric))):
            assert decide(ours, [PASSED], champion) == Decision("challenger", f"{metric} {value:g} is no measurement")
        decision = decide(figure(metric=metric), [PASSED], Champion("2", ours))
        assert decision == Decision("challenger", "the champion, version 2, carries no figure to compare with")


def test_a_model_that_evaluate_gives_no_such_metric_is_challenger():
    assert decide(figure(value=None), [PASSED], None) == Decision("challenger", "evaluate gives no nll_iw")


@pytest.mark.parametrize("value", [None, math.nan, 1.1])
def test_what_is_above_the_limit_or_unknown_fails(value):
    assert not at_most("nll", value, 1.0).passed
    assert at_most("nll", value, None).passed


def test_a_limit_is_within_the_limit():
    assert at_most("nll", 1.0, 1.0).passed


@pytest.mark.parametrize(
    ("metric", "value", "importance_samples"),
    [("nll_iw", 103.5, "5000"), ("elbo", -107.8, "-"), ("bits_per_dim", 0.19, "5000")],
)
def test_a_figure_says_what_it_was_measured_on(metric, value, importance_samples):
    found = figure_of(metric, TRAINING, EVALUATION)
    assert found == figure(metric=metric, value=value, importance_samples=importance_samples)


def test_a_bound_of_images_whose_class_is_told_says_so():
    training = dataclasses.replace(TRAINING, params={**TRAINING.params, "model.condition": "label"})
    assert figure_of("nll_iw", training, EVALUATION) == figure(condition="label")


def test_a_version_that_does_not_tell_its_condition_had_none():
    tags = figure().to_tags()
    assert Figure.from_tags(tags) == figure()
    del tags["condition"]
    assert Figure.from_tags(tags) == figure()


def test_grey_pixels_need_no_seed():
    training = dataclasses.replace(TRAINING, params={**TRAINING.params, "train.binarize": "none"})
    assert figure_of("elbo", training, EVALUATION).test_pixels == "grey"


def test_a_plain_auto_encoder_has_no_figure():
    evaluation = dataclasses.replace(EVALUATION, metrics={"test/recon": -80.0, "test/active_units": 12})
    assert figure_of("nll_iw", TRAINING, evaluation).value is None


def test_a_record_that_lacks_what_is_compared_is_refused():
    with pytest.raises(UserError, match=r"lacks 'evaluate.importance_samples'; expected what those stages write"):
        figure_of("nll_iw", TRAINING, dataclasses.replace(EVALUATION, params={}))


def test_a_figure_comes_back_from_the_tags_of_a_version():
    assert Figure.from_tags({**FIGURE.to_tags(), "owner": "ada"}) == FIGURE
    assert Figure.from_tags(figure(value=None).to_tags()) is None
    assert Figure.from_tags({"owner": "ada"}) is None


def test_gates_hold_what_the_params_ask():
    found = gates_of(PARAMS, EVALUATION, MEASURED)
    assert [(gate.name, gate.value, gate.limit) for gate in found] == [
        *((name, error, 1e-4) for name, error in PARITY.items()),
        ("failed_checks", 0, 0),
        ("nll", 103.5, None),
        ("latency_ms", 1.5, 50.0),
    ]
    assert all(gate.passed for gate in found)


@pytest.mark.parametrize(("limit", "failed"), [({"max_nll": 103.0}, "nll"), ({"max_latency_ms": 1.0}, "latency_ms")])
def test_each_limit_is_that_of_its_param(limit, failed):
    params = PARAMS.model_copy(update=limit)
    found = gates_of(params, EVALUATION, MEASURED)
    assert [gate.name for gate in found if not gate.passed] == [failed]


@pytest.mark.parametrize("name", PARITY)
@pytest.mark.parametrize("value", [2e-4, math.nan, None])
def test_no_file_that_differs_from_torch_or_was_not_compared_passes(name, value):
    found = gates_of(PARAMS, EVALUATION, MEASURED | {f"export/{name}": value})
    assert [gate.name for gate in found if not gate.passed] == [name]


@pytest.mark.parametrize("value", [1, None])
def test_an_unhealthy_model_or_one_that_was_not_examined_is_no_champion(value):
    evaluation = dataclasses.replace(EVALUATION, metrics={**EVALUATION.metrics, "test/failed_checks": value})
    assert [gate.name for gate in gates_of(PARAMS, evaluation, MEASURED) if not gate.passed] == ["failed_checks"]
