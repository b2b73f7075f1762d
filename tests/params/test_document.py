import pytest
from changed_params import REAL, ROOT, changed

from pipeline.errors import UserError
from pipeline.params import check_params, flatten, load_params, parse_setting


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


def test_nan_in_the_file_is_refused(file):
    file.write_text((ROOT / "params.yaml").read_text().replace("beta: 1.0", "beta: .nan"))
    assert file_message(file) == "train.beta is nan; expected a finite number"


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
        ("a:\n  b: 2024-02-30\n", "YAML syntax error at line 2, column 6: '2024-02-30' is no timestamp (day is out of"),
        ("a:\n  b: 0x_\n", "YAML syntax error at line 2, column 6: '0x_' is no int ("),
        ("a:\n  b: !!int ''\n", "YAML syntax error at line 2, column 6: '' is no int ("),
        ("a:\n  b: !!bool x\n", "YAML syntax error at line 2, column 6: 'x' is no bool ("),
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
        (b'beta: "\\UFFFFFFFF"\n', "YAML error: "),
        (b"? [[1], {a: 1}]\n: b\n", "YAML error: "),
        (b"[" * 500, "is nested too deeply, or holds itself; expected sections such as 'train:'"),
        (b"train: &a {beta: *a}\n", "is nested too deeply, or holds itself; expected sections such as 'train:'"),
        (b"1: 2\n", "1 stands before a colon; expected a name"),
        (b"train:\n  3: 1\n", "3 stands before a colon; expected a name"),
        (b"train:\n  ~: 1\n", "None stands before a colon; expected a name"),
        (b"train:\n  [a]: 1\n", "('a',) stands before a colon; expected a name"),
        (b"target:\n  test/elbo: {b: 1, 3: 2}\n", "3 stands before a colon; expected a name"),
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
        "adagrad",
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


ELSEWHERE = {
    "prepare.root": "/data",
    "prepare.path": "other",
    "train.checkpoint_minutes": 7.0,
    "train.devices": 2,
    "train.nodes": 2,
    "train.device": "cpu",
}
SHAPING = [
    name for section in SHAPE_THE_MODEL for field in REAL[section] if (name := f"{section}.{field}") not in ELSEWHERE
]


@pytest.mark.parametrize("name", [name for name in SHAPING if name not in ELSEWHERE])
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


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_digest_of_a_recipe_is_the_same_on_every_machine(name):
    digests = [check_params(changed(change), "params.yaml").digest() for change in ({}, {name: ELSEWHERE[name]})]
    assert digests[0] == digests[1]


def test_the_digest_of_a_model_does_not_change_with_how_it_is_measured():
    other = changed({"evaluate.seed": 7, "export.max_parity_error": 0.03})
    assert check_params(other, "params.yaml").digest() == check_params(REAL, "params.yaml").digest()


def test_flat_names_are_those_that_mlflow_shows():
    params = check_params(REAL, "params.yaml")
    flat = flatten(params.model, "model")
    assert flat["model.hidden"] == [400, 400]
    assert list(flat) == [f"model.{name}" for name in REAL["model"]]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model.sigma=0.1", 0.1),
        ("model.sigma=1e-1", 0.1),
        ("model.sigma=learned", "learned"),
        ("model.sigma=null", None),
        ("model.sigma=[1, 2]", [1, 2]),
        ("model.sigma=[eight]", ["eight"]),
        ("model.sigma=a=b", "a=b"),
        ("model.sigma=[1", "[1"),
        ("model.sigma=2024-13-01", "2024-13-01"),
        ("model.sigma=0x_", "0x_"),
        pytest.param("model.sigma=" + "[" * 500, "[" * 500, id="deep"),
    ],
)
def test_a_setting_is_read_as_params_yaml_is(setting, value):
    assert parse_setting(setting) == ("model.sigma", value)
