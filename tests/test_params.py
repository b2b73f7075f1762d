import copy
import math
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.params import Params, check_params, flatten, load_params, read_yaml

ROOT = Path(__file__).parents[1]
REAL = read_yaml(ROOT / "params.yaml")


def changed(changes):
    """The real params with some of them changed: {"train.beta": -1.0}."""
    content = copy.deepcopy(REAL)
    for name, value in changes.items():
        section, field = name.split(".")
        content[section][field] = value
    return content


def message(content):
    with pytest.raises(UserError) as error:
        check_params(content, "params.yaml")
    return str(error.value)


def file_message(path):
    with pytest.raises(UserError) as error:
        load_params(path)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "params.yaml"


def test_the_params_of_the_repository_are_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.model.hidden == (400, 400)
    assert params.train.epochs == 100


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train.beta": -1.0}, "train.beta is -1.0; expected a number >= 0"),
        ({"train.learning_rate": 0}, "train.learning_rate is 0; expected a number > 0"),
        ({"train.ema_decay": 1.0}, "train.ema_decay is 1.0; expected a number < 1"),
        ({"train.epochs": 0}, "train.epochs is 0; expected a number >= 1"),
        ({"train.seed": -1}, "train.seed is -1; expected a number >= 0"),
        ({"train.seed": 2**32}, "train.seed is 4294967296; expected a number <= 4294967295"),
        ({"train.early_stopping_epochs": 0}, "train.early_stopping_epochs is 0; expected a number >= 1, or null"),
        (
            {"model.sigma": 0.0},
            "model.sigma is 0.0; expected a number >= 0.001, or one of learned, optimal or per_pixel",
        ),
        ({"model.likelihood_components": 0}, "model.likelihood_components is 0; expected a number >= 1"),
        ({"model.prior_components": 0}, "model.prior_components is 0; expected a number >= 1"),
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
            {"model.network": "ladder", "train.free_bits": 0.5},
            "train.free_bits is 0.5 while model.network is 'ladder'; "
            "expected train.free_bits: 0.0, or model.network: mlp",
        ),
        ({"model.likelihood_components": 101}, "model.likelihood_components is 101; expected a number <= 100"),
        ({"model.hidden": [400, 0]}, "model.hidden.1 is 0; expected a number >= 1"),
        ({"prepare.image_size": [0, 28]}, "prepare.image_size.0 is 0; expected a number >= 1"),
        ({"prepare.val_fraction": 1.0}, "prepare.val_fraction is 1.0; expected a number < 1"),
        ({"export.max_parity_error": 0.0}, "export.max_parity_error is 0.0; expected a number > 0"),
        ({"export.score_samples": 0}, "export.score_samples is 0; expected a number >= 1"),
        ({"export.detection_images": 1}, "export.detection_images is 1; expected a number >= 2"),
        ({"export.min_speedup": 0}, "export.min_speedup is 0; expected a number > 0, or null"),
        ({"export.max_quality_loss": -0.1}, "export.max_quality_loss is -0.1; expected a number >= 0"),
        ({"evaluate.ais_images": -1}, "evaluate.ais_images is -1; expected a number >= 0"),
        ({"evaluate.ais_schedule": "cubic"}, "evaluate.ais_schedule is 'cubic'; expected one of linear or sigmoid"),
        ({"health.min_active_share": 1.5}, "health.min_active_share is 1.5; expected a number <= 1, or null"),
        ({"health.max_prior_gap": -0.1}, "health.max_prior_gap is -0.1; expected a number >= 0, or null"),
        ({"export.max_latency_ms": 0}, "export.max_latency_ms is 0; expected a number > 0, or null"),
        (
            {"export.registered_model": "vae/1"},
            "export.registered_model is 'vae/1'; expected a name of letters, digits, . _ and -, or null",
        ),
        ({"evaluate.importance_samples": 0}, "evaluate.importance_samples is 0; expected a number >= 1"),
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
        ({"model.hidden": 400}, "model.hidden is 400; expected a list"),
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
        ({"model.network": "cnn"}, "model.network is 'cnn'; expected one of mlp, conv or ladder"),
        (
            {"train.device": "cuda:0"},
            "train.device is 'cuda:0'; expected one of auto, cpu or cuda; did you mean cuda?",
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
        ({"prepare.held_out_labels": 4}, "prepare.held_out_labels is 4; expected a list"),
        ({"prepare.held_out_labels": [4.5]}, "prepare.held_out_labels.0 is 4.5; expected text, or a whole number"),
        ({"prepare.root": ""}, "prepare.root is ''; expected some text"),
        ({"prepare.image_size": 28}, "prepare.image_size is 28; expected a list, or null"),
        ({"prepare.image_size": [28]}, "prepare.image_size.1 is missing; expected a value (a list may be too short)"),
        ({"prepare.image_size": [28, 28, 1]}, "prepare.image_size is [28, 28, 1]; expected fewer entries, or null"),
    ],
)
def test_a_value_of_another_type_is_named(changes, expected):
    assert message(changed(changes)) == f"params.yaml: {expected}"


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
            "model.prior is 'per_class' while train.objective is 'tc', which wants one p(z) for all images; "
            "expected model.prior: standard, or train.objective: elbo",
        ),
        (
            {"model.prior": "vamp", "model.condition": "label"},
            "model.prior is 'vamp' while model.condition is 'label', and its pseudo-inputs have no class; "
            "expected model.prior: standard, mixture or per_class, or model.condition: none",
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
    ],
)
def test_wake_sleep_refuses_what_it_cannot_dream_of(changes, found):
    assert check_params(changed(WAKE_SLEEP), "params.yaml").train.objective == "wake_sleep"
    assert message(changed(WAKE_SLEEP | changes)).startswith(f"params.yaml: {found}")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["train.beta", "train.learning_rate", "model.sigma", "export.max_parity_error"])
def test_a_number_that_is_not_finite_is_refused(name, value):
    expected = message(changed({name: value}))
    assert expected.startswith(f"params.yaml: {name} is {value}; expected a ")


def test_nan_in_the_file_is_refused(file):
    file.write_text((ROOT / "params.yaml").read_text().replace("beta: 1.0", "beta: .nan"))
    assert file_message(file) == "train.beta is nan; expected a finite number"


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


def test_a_missing_section_and_a_missing_param_are_named():
    without_section = {name: section for name, section in REAL.items() if name != "export"}
    assert message(without_section).startswith("params.yaml: export is missing; expected a ")
    without_param = changed({})
    del without_param["train"]["beta"]
    assert message(without_param).startswith("params.yaml: train.beta is missing; expected a value")


@pytest.mark.parametrize("section", [None, 3, "fast", [1]])
def test_a_section_that_holds_no_params_is_named(section):
    expected = f"params.yaml: train is {section!r}; expected a section of named params"
    assert message({**REAL, "train": section}) == expected


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
            "expected train.free_bits: 0, or elbo and standard, where dimensions have a KL",
        ),
        (
            {"train.sampled_kl": True, "train.free_bits": 0.5},
            "train.sampled_kl is true while train.objective is 'elbo' and train.free_bits is 0.5; "
            "expected train.sampled_kl: false, or train.objective: elbo without free bits",
        ),
        (
            {"train.objective": "tc", "train.devices": 2},
            "train.devices * train.nodes is 2 while train.objective is 'tc', whose total correlation is that of a "
            "whole batch; expected one process, or train.objective: elbo",
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
            "expected train.free_bits: 0, or elbo and standard, where dimensions have a KL",
        ),
        (
            {"model.network": "conv", "model.hidden": []},
            "model.hidden is []; expected at least one stage of channels for model.network: conv",
        ),
        (
            {"prepare.val_fraction": 0.5, "prepare.test_fraction": 0.5},
            "prepare.val_fraction + prepare.test_fraction is 1; expected less than 1",
        ),
    ],
)
def test_params_that_contradict_each_other_are_refused(changes, expected):
    assert message(changed(changes)) == f"params.yaml: {expected}"


def test_an_mlp_without_hidden_layers_is_allowed():
    assert check_params(changed({"model.hidden": []}), "params.yaml").model.hidden == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n  beta: [1.0\nmodel: 2\n", "YAML syntax error at line 3, column 6: "),
        ("train:\n  beta: 1\n beta: 2\n", "YAML syntax error at line 3, column 2: "),
        ("train:\n\tbeta: 1\n", "YAML syntax error at line 2, column 1: "),
        ("train: 'open\n", "YAML syntax error at line 2, column 1: "),
        ("train:\n  beta: 1\n  beta: 2\n", 'YAML syntax error at line 3, column 3: found duplicate key "beta"'),
        ("train: !!python/object/apply:os.system [ls]\n", "YAML syntax error at line 1, column 8: could not determine"),
        ("train: *nothing\n", "YAML syntax error at line 1, column 8: found undefined alias"),
    ],
)
def test_a_yaml_error_is_told_with_its_line_and_column(file, text, expected):
    file.write_text(text)
    assert file_message(file).startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds NoneType; expected sections such as 'train:'"),
        (b"- 1\n", "holds list; expected sections such as 'train:'"),
        (b"fast", "holds str; expected sections such as 'train:'"),
        (b"a: 1\n---\nb: 2\n", "YAML syntax error at line 2, column 1: "),
        (b"beta: \xff\n", "not UTF-8 text (invalid start byte at byte 6)"),
        (b"beta: \x00\n", "YAML error: "),
    ],
)
def test_a_file_of_something_else_is_refused(file, content, expected):
    file.write_bytes(content)
    assert file_message(file).startswith(expected)


def test_a_missing_file_is_named_with_the_place_where_it_was_sought(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        load_params()
    assert str(error.value) == f"params.yaml: not found in {tmp_path}; expected the pipeline's params"


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0E-3", "1e-03"])
def test_scientific_notation_is_a_number(file, text):
    file.write_text((ROOT / "params.yaml").read_text().replace("learning_rate: 0.001", f"learning_rate: {text}"))
    assert load_params(file).train.learning_rate == 0.001


def test_a_whole_number_is_a_number():
    assert check_params(changed({"train.beta": 4}), "params.yaml").train.beta == 4.0


def test_params_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        check_params(REAL, "params.yaml").train.beta = 2.0


def test_the_digest_does_not_depend_on_the_order_or_the_spelling():
    reordered = {name: dict(reversed(section.items())) for name, section in reversed(REAL.items())}
    digest = check_params(REAL, "params.yaml").digest()
    assert len(digest) == 64
    assert check_params(reordered, "params.yaml").digest() == digest
    assert check_params(changed({"train.beta": 1}), "params.yaml").digest() == digest


OTHER_VALUES = {
    str: (
        "images",
        "other",
        "rgb",
        "skip",
        "conv",
        "mixture",
        "iaf",
        "tanh",
        "gaussian",
        "autoencoder",
        "none",
        "constant",
        "bf16",
        "cpu",
        "never",
        "rollback",
        "last",
        "layer",
        0.5,
    ),
    int: (7,),
    float: (0.03,),
    list: ([5],),
    type(None): ([9, 9], 3),
    bool: (True,),
}


SHAPE_THE_MODEL = ("prepare", "model", "train")


@pytest.mark.parametrize("name", [f"{section}.{field}" for section in SHAPE_THE_MODEL for field in REAL[section]])
def test_the_digest_changes_with_every_param_that_shapes_the_model(name):
    section, field = name.split(".")
    accepted = []
    for value in OTHER_VALUES[type(REAL[section][field])]:
        if value == REAL[section][field]:
            continue
        # a likelihood other than bernoulli needs another binarisation, which would change the digest by itself
        base = {"train.binarize": "none"} if name == "model.likelihood" else {}
        if name == "model.condition":
            base, value = {name: "label"}, REAL["model"]["condition"]
        base |= {"model.network": "conv"} if name == "model.residual_blocks" else {}
        try:
            params = check_params(changed(base | {name: value}), "params.yaml")
        except UserError:
            continue
        accepted.append(params.digest() != check_params(changed(base), "params.yaml").digest())
    assert accepted
    assert all(accepted)


def test_the_digest_of_a_model_does_not_change_with_how_it_is_measured():
    other = changed({"evaluate.seed": 7, "export.max_parity_error": 0.03})
    assert check_params(other, "params.yaml").digest() == check_params(REAL, "params.yaml").digest()


def test_flat_names_are_those_that_mlflow_shows():
    params = check_params(REAL, "params.yaml")
    flat = flatten(params.model, "model")
    assert flat["model.hidden"] == [400, 400]
    assert list(flat) == [f"model.{name}" for name in REAL["model"]]


def test_every_section_and_every_param_is_described():
    undescribed = [
        f"{name}.{field}"
        for name, section in Params.model_fields.items()
        for field, info in section.annotation.model_fields.items()
        if not info.description
    ]
    assert undescribed == []
    assert all(section.annotation.__doc__ for section in Params.model_fields.values())


def test_the_code_holds_no_second_copy_of_a_value():
    sections = [Params, *(section.annotation for section in Params.model_fields.values())]
    assert [
        field for section in sections for field, info in section.model_fields.items() if not info.is_required()
    ] == []


def test_params_stand_in_the_order_in_which_the_code_names_them():
    for name, section in Params.model_fields.items():
        assert list(REAL[name]) == list(section.annotation.model_fields)
    assert list(REAL) == list(Params.model_fields)
