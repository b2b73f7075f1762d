from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.paper.plan import Measure, load_plan
from pipeline.params import read_yaml

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "paper").glob("*.yaml"))
BASE = read_yaml(ROOT / "params.yaml")
HOW = "measure: {first: 100, last: 1000, per_decade: 2, images: 5, importance_samples: 1}\n"
GRID = "grid: {model.latent_dim: [2, 5], train.objective: [elbo, wake_sleep]}\n"
PARAMS = "params: {train.warmup_epochs: 0, train.ema_decay: 0.0}\n"
WHOLE = f"figures: [bound]\n{PARAMS}{GRID}{HOW}"


def write(folder, text):
    path = folder / "small.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_paper_is_valid(path):
    plan = load_plan(path, BASE)
    assert plan.figures
    assert len({run.name for run in plan.runs}) == len(plan.runs) > 1


def test_both_algorithms_train_the_same_networks():
    for path in RECIPES:
        pairs = {}
        for run in load_plan(path, BASE).runs:
            pairs.setdefault((run.params.prepare.train_images, run.params.model), set()).add(run.algorithm)
        both = {"elbo", "wake_sleep"}
        assert all(both <= found <= {*both, "mcem"} for found in pairs.values()) or path.stem == "mnist-samples"


def test_the_runs_are_all_points_of_the_grid(tmp_path):
    runs = load_plan(write(tmp_path, WHOLE), BASE).runs
    assert [(run.params.model.latent_dim, run.params.train.objective) for run in runs] == [
        (2, "elbo"),
        (2, "wake_sleep"),
        (5, "elbo"),
        (5, "wake_sleep"),
    ]
    assert runs[1].name == "small-latent_dim-2-objective-wake_sleep"


def test_a_point_beside_the_grid_is_a_run_of_an_algorithm_that_no_param_names(tmp_path):
    also = "also: [{model.latent_dim: 3, train.objective: mcem}]\n"
    text = WHOLE.replace("ema_decay: 0.0", "ema_decay: 0.0, train.schedule: constant") + also
    *_, before, run = load_plan(write(tmp_path, text), BASE).runs
    assert (run.algorithm, run.params.train.objective, run.params.model.latent_dim) == ("mcem", "elbo", 3)
    assert run.name == "small-latent_dim-3-objective-mcem"
    assert before.algorithm == "wake_sleep"


def test_the_command_line_has_the_last_word(tmp_path):
    overrides = ["measure.last=400", "prepare.root=/data", "train.learning_rate=0.02"]
    [run, *_] = load_plan(write(tmp_path, WHOLE), BASE, overrides).runs
    assert (run.measure.last, run.params.prepare.root, run.params.train.learning_rate) == (400, "/data", 0.02)


RATES = "learning_rates: [0.01, 0.1]\n"


def test_each_run_may_choose_among_learning_rates_and_the_command_line_settles_it(tmp_path):
    path = write(tmp_path, WHOLE + RATES)
    assert {run.learning_rates for run in load_plan(path, BASE).runs} == {(0.01, 0.1)}
    for run in load_plan(path, BASE, ["train.learning_rate=0.02"]).runs:
        assert (run.learning_rates, run.params.train.learning_rate) == ((), 0.02)


def test_milestones_lie_at_equal_ratios_and_end_the_run():
    milestones = Measure(first=100, last=10_000, per_decade=2, images=1, importance_samples=1).milestones
    assert milestones == [100, 316, 1000, 3162, 10_000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PARAMS + GRID + HOW, "holds params, grid, measure; expected the list figures, the mappings params, grid"),
        (WHOLE.replace("bound", "bounds"), "figures has 'bounds'; expected some of bound, likelihood, manifold"),
        (WHOLE.replace("[bound]", "[[1]]"), "figures has .1.; expected some of bound, likelihood, manifold"),
        (
            WHOLE.replace("ema_decay: 0.0", "ema_decay: 0.9"),
            "train.ema_decay is 0.9, which has no effect on these runs",
        ),
        (
            WHOLE.replace(
                "ema_decay: 0.0",
                "ema_decay: 0.0, model.likelihood: gaussian, train.binarize: none, model.sigma: optimal",
            ).replace(", wake_sleep", ""),
            "model.sigma is 'optimal', which has no effect on these runs; expected learned",
        ),
        (
            WHOLE.replace("ema_decay: 0.0", "ema_decay: 0.0, model.prior: vamp").replace(", wake_sleep", ""),
            "model.prior is 'vamp', which has no effect on these runs; expected another",
        ),
        (WHOLE.replace("bound", "likelihood"), "figures has 'likelihood'; expected prepare.train_images in grid"),
        (
            WHOLE.replace("bound", "likelihood").replace("model.latent_dim: [2, 5]", "prepare.train_images: [9]"),
            "figures has 'likelihood', and measure.posterior_samples is 0; expected at least 1",
        ),
        (
            WHOLE + "learning_rates: []\n",
            "learning_rates is .*; expected at least one value, and no train.learning_rate",
        ),
        (
            WHOLE.replace("ema_decay: 0.0", "ema_decay: 0.0, train.learning_rate: 0.1") + RATES,
            "learning_rates is .0.01, 0.1.; expected at least one value, and no train.learning_rate in params",
        ),
        (WHOLE + "learning_rates: [0.1, -1]\n", "train.learning_rate is -1; expected a number > 0"),
        (WHOLE + "also: {a: 1}\n", "holds figures, params, grid, measure, also; expected the list figures"),
        (
            WHOLE + "also: [{train.objective: mcem}]\n",
            "also has {'train.objective': 'mcem'}; expected a value for each of model.latent_dim, train.objective",
        ),
        (
            WHOLE + "also: [{model.latent_dim: 3, train.objective: mcem}]\n",
            "train.schedule is 'cosine', which has no effect on these runs; expected constant",
        ),
        (
            WHOLE.replace("samples: 1}", "samples: 1, posterior_samples: -1}"),
            "measure.posterior_samples is -1; expected a whole number >= 0",
        ),
        (WHOLE.replace("[2, 5]", "2"), "grid.model.latent_dim is 2; expected a list of values"),
        (WHOLE.replace("[2, 5]", "[0]"), "model.latent_dim is 0; expected a whole number >= 1"),
        (WHOLE.replace("warmup_epochs: 0", "warmup_epochs: 3"), "train.warmup_epochs is 3 while train.objective is"),
        (
            WHOLE.replace("[bound]", "[manifold]").replace("[2, 5]", "[5]"),
            "figures has 'manifold', and no run a model.l",
        ),
        (
            WHOLE.replace("train.warmup", "trian.warmup"),
            "trian.warmup_epochs is in no section; expected one of prepare",
        ),
        (WHOLE.replace("images: 5", "images: many"), "measure.images is 'many'; expected a whole number >= 1"),
        (WHOLE.replace("images: 5, ", ""), "measure holds first, last, per_decade, importance_samples; expected first"),
        (WHOLE.replace("last: 1000", "last: 10"), "measure.last is 10; expected at least measure.first, 100"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        load_plan(path, BASE)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    there = write(tmp_path, WHOLE).stem
    with pytest.raises(UserError, match=rf"^{tmp_path}/nope.yaml: no such recipe; in {tmp_path} there are: {there}$"):
        load_plan(tmp_path / "nope.yaml", BASE)


def test_what_is_no_setting_is_refused(tmp_path):
    with pytest.raises(UserError, match="'train.epochs' is no setting; expected section.param=value"):
        load_plan(write(tmp_path, WHOLE), BASE, ["train.epochs"])
