"""`python -m pipeline.sweep` with the experiments replaced; tests/test_pipeline.py runs real ones."""

import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.errors import UserError
from pipeline.files import read_csv
from pipeline.sweep import __main__ as module

ROOT = Path(__file__).parents[2]
RECIPE = {
    "params": {"train.epochs": 2},
    "grid": {"model.latent_dim": [2, 5], "train.beta": [0.5, 1.0]},
}
METRICS = {"test/elbo": -106.0, "test/recon": -86.0, "test/kl": 20.0, "test/active_units": 2}


@pytest.fixture
def experiments(monkeypatch):
    """What was run, by name: the settings and the stages."""
    ran = {}

    def run(name, settings, stages):
        ran[name] = (settings, stages)

    monkeypatch.setattr(module, "run_experiment", run)
    monkeypatch.setattr(module, "metrics_of", lambda name: METRICS)
    return ran


@pytest.fixture
def sweep(tmp_path, monkeypatch, experiments):
    """Run `main` over a small recipe."""
    with open(tmp_path / "small.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(RECIPE, file)
    monkeypatch.chdir(ROOT)

    def run(*overrides):
        monkeypatch.setattr(sys, "argv", ["sweep", str(tmp_path / "small.yaml"), str(tmp_path / "report"), *overrides])
        module.main()

    return run


def test_every_point_is_an_experiment_and_a_row_of_the_table(sweep, experiments, tmp_path, capsys):
    sweep("train.seed=1")
    assert len(experiments) == 4
    settings, stages = experiments["small-latent_dim5-beta0.5"]
    assert settings == ["train.epochs=2", "model.latent_dim=5", "train.beta=0.5", "train.seed=1"]
    assert stages == ["evaluate"]
    rows = read_csv(tmp_path / "report" / "small.csv")
    assert [(row["model.latent_dim"], row["train.beta"]) for row in rows] == [(2, 0.5), (2, 1), (5, 0.5), (5, 1)]
    assert {name: rows[0][name] for name in ("rate", "distortion", "elbo", "active_units")} == {
        "rate": 20.0,
        "distortion": 86.0,
        "elbo": -106.0,
        "active_units": 2,
    }
    assert (tmp_path / "report" / "small.png").stat().st_size > 1000
    assert capsys.readouterr().out.splitlines()[-1].startswith("sweep small: 4 points -> ")


def test_a_failed_point_keeps_no_other_from_running_and_nothing_is_drawn(sweep, experiments, monkeypatch, tmp_path):
    run = module.run_experiment

    def run_or_fail(name, settings, stages):
        run(name, settings, stages)
        if name == "small-latent_dim2-beta1.0":
            raise UserError("experiment failed")

    monkeypatch.setattr(module, "run_experiment", run_or_fail)
    with pytest.raises(UserError, match="^sweep small: 1 of 4 experiments failed: small-latent_dim2-beta1.0; see"):
        sweep()
    assert len(experiments) == 4
    assert not (tmp_path / "report").exists()


def test_a_plain_auto_encoder_has_no_rate(sweep, monkeypatch):
    monkeypatch.setattr(module, "metrics_of", lambda name: {"test/recon": -86.0, "test/active_units": 2})
    with pytest.raises(UserError, match=r"has no test/kl; expected train.objective: elbo$"):
        sweep()


def test_a_bad_override_is_refused_before_any_experiment(sweep, experiments):
    with pytest.raises(UserError, match=r"^command line: train.bata is not a known param; did you mean train.beta\?$"):
        sweep("train.bata=1")
    assert not experiments
