from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.params import read_yaml
from pipeline.sweep.grid import Sweep, load_sweep

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "sweeps").glob("*.yaml"))
BASE = read_yaml(ROOT / "params.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_sweep_is_valid(path):
    assert load_sweep(path, BASE).points


def test_the_points_are_all_pairs_line_by_line():
    sweep = Sweep("s", {}, {"model.latent_dim": [2, 5], "train.beta": [0.5, 1.0]})
    assert sweep.points == [
        {"model.latent_dim": 2, "train.beta": 0.5},
        {"model.latent_dim": 2, "train.beta": 1.0},
        {"model.latent_dim": 5, "train.beta": 0.5},
        {"model.latent_dim": 5, "train.beta": 1.0},
    ]
    assert sweep.experiment(sweep.points[1]) == "s-latent_dim2-beta1.0"


GRID = "grid: {model.latent_dim: [2], train.beta: [1.0]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {}", "holds grid; expected the mappings params and grid"),
        ("params: 3\n" + GRID, "expected the mappings params and grid"),
        ("params: {}\ngrid: {train.beta: [1.0]}", "grid names 1 params; expected two"),
        ("params: {}\ngrid: {train.beta: 1.0, model.latent_dim: [2]}", "grid.train.beta is 1.0; expected a list of"),
        ("params: {}\ngrid: {train.beta: [], model.latent_dim: [2]}", r"grid.train.beta is \[\]; expected a list of"),
        ("params: {}\ngrid: {train.beta: [1.0, 1.0], model.latent_dim: [2]}", "expected a list of different numbers"),
        ("params: {}\ngrid: {model.network: [mlp], model.latent_dim: [2]}", "expected a list of different numbers"),
        ("params: {}\ngrid: {train.bata: [1.0], model.latent_dim: [2]}", "did you mean train.beta?"),
        ("params: {}\ngrid: {beta: [1.0], model.latent_dim: [2]}", "beta is in no section; expected one of prepare, "),
        ("params: {}\ngrid: {train.beta: [-1.0], model.latent_dim: [2]}", "train.beta is -1.0; expected a number >= 0"),
        ("params: {train.epochs: 0}\n" + GRID, "train.epochs is 0; expected a whole number >= 1"),
    ],
)
def test_a_bad_sweep_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_sweep(path, BASE)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_sweep_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    (tmp_path / "rates.yaml").write_text("params: {}")
    with pytest.raises(UserError, match=rf"^{tmp_path}/nope.yaml: no such sweep; in {tmp_path} there are: rates$"):
        load_sweep(tmp_path / "nope.yaml", BASE)


def test_an_empty_section_of_params_yaml_is_told_before_a_sweep_is_applied(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("params: {}\n" + GRID)
    with pytest.raises(UserError, match=r"^params\.yaml: prepare is None; expected a section of named params$"):
        load_sweep(path, BASE | {"prepare": None})
