import contextlib
import io
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_digits
from torch import nn

from pipeline import evaluate, export
from pipeline.aggregate import load_aggregate
from pipeline.checkpoint import load_checkpoint
from pipeline.errors import UserError
from pipeline.files import read_csv, read_json
from pipeline.metrics.latents import LatentUse
from pipeline.metrics.likelihood import Encoded
from pipeline.params import read_yaml
from pipeline.recipe import MEASURED
from pipeline.record import Record
from pipeline.vae.model import VAE, VAEConfig

RECIPES = Path(__file__).parents[1] / "recipes"

ALWAYS = {
    "reconstructions",
    "samples",
    "traversals",
    "learning_curves",
    "kl_per_dimension",
    "importance_bound",
    "nearest_training",
}
DISTANCES = {"kid", "kid_stderr", "fid", "precision", "recall", "density", "coverage"}
OF_SAMPLES = {
    f"test/{before}{name.replace('_stderr', '')}_random_conv{'_stderr' * name.endswith('stderr')}"
    for name in DISTANCES
    for before in ("", "yardstick_")
} | {f"test/memorisation_{name}" for name in ("ratio", "copies", "test_copies")}


def metrics(folder):
    return read_json(folder / "metrics.json")


def figures(folder):
    return {path.stem for path in (folder / "figures").iterdir() if path.read_bytes().startswith(b"\x89PNG")}


def assert_in_order_over_the_same_samples(found):
    """Without a closed form of the KL the ELBO is the mean of the log-weights, and the bound the log of their mean."""
    assert found["test/elbo"] == pytest.approx(-found["test/nll_iw1"], rel=1e-5)
    assert found["test/elbo"] < -found["test/nll_iw5"]


def assert_recipes_are_held_to_what_is_measured(found, *lacking):
    """And to all of it that says how good a model is; `lacking` are parts of the names that this one has not."""
    of_test = {name for name in MEASURED if name.startswith("test/")}
    assert {name for name in of_test - found.keys() if not any(part in name for part in lacking)} == set()
    beside = r"_stderr$|/yardstick_|/aggregate_|/nll_iw\d+$|_nce$|information_fitted$|_ceiling$"
    beside += "|/classifier_accuracy$|_test_copies$"
    assert [name for name in found.keys() - of_test if not re.search(beside, name)] == []


def assert_nothing_was_written(workplace, expected):
    with pytest.raises(UserError, match=expected) as error:
        workplace.evaluate()
    assert "\n" not in str(error.value)
    assert list(Path().rglob("reports/*")) == []


@pytest.fixture(scope="module")
def reported(shared_workplace):
    """The usual training and its evaluation, for the tests that only read what came of them."""
    with shared_workplace() as (workplace, store):
        checkpoint = workplace.train().resolve()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            folder = workplace.evaluate()
        return Reported(checkpoint, folder.resolve(), folder, printed.getvalue(), store)


@dataclass(frozen=True)
class Reported:
    """What a training and an evaluation left, and what the latter printed of the folder that it was given."""

    checkpoint: Path
    folder: Path
    given: Path
    printed: str
    store: MlflowClient


@pytest.fixture
def trained(workplace, reported):
    """The same training in a working directory of the test's own; its row, evaluate lays from what it left."""
    shutil.copytree(reported.checkpoint, "models/checkpoint")
    return workplace


def test_a_conditional_model_is_measured_by_the_classes_that_it_knows(workplace):
    fours = np.flatnonzero(load_digits().target == 4).tolist()  # a gap in the numbers of the labels
    counts = {"held_out": fours, "train": 600, "val": 60, "test": 50}
    workplace.prepare(counts, classes=[str(digit) for digit in range(10)], held_out=True)
    changes = {
        "model__condition": "label",
        "model__prior": "per_class",
        "train__epochs": 10,
        "train__learning_rate": 0.01,
    }
    workplace.train(**changes)
    asked = {"evaluate__amortisation_images": 4, "evaluate__aggregate_components": 2}
    folder = workplace.evaluate(**changes, **asked, evaluate__importance_samples=200)
    found = metrics(folder)
    assert found["test/sample_label_accuracy"] > 0.3  # by chance: 0.11
    assert found["test/aggregate_sample_label_accuracy"] > 0.3
    assert len(load_aggregate(folder, 3, classes=9).mixture().mu) == 9
    assert found["test/elbo"] < -found["test/nll_iw200"]
    assert found["test/elbo"] == pytest.approx(-found["test/nll_iw1"], abs=0.1)  # the KL's closed form, and its draws
    assert found["test/marginal_kl_fitted_stderr"] > 0  # of each class's codes to the prior of the class
    assert "prior_hole" in read_json(folder / "health.json")["checks"]
    assert "test/mutual_information_nce" not in found
    assert found["test/mutual_information_fitted"] == found["test/kl"] - found["test/marginal_kl_fitted"]
    assert "samples" in figures(folder)
    assert_recipes_are_held_to_what_is_measured(found, "random_conv")


@pytest.mark.parametrize(("epochs", "marked"), [({"best_epoch": 1, "kept_epoch": 2}, 2), ({"best_epoch": 1}, 1)])
def test_the_curves_mark_the_kept_epoch_which_an_older_checkpoint_calls_its_best(epochs, marked):
    rows = [{"epoch": epoch, "train/recon": -9.0 / epoch, "val/recon": -10.0 / epoch} for epoch in (1.0, 2.0)]
    training = Record("train", "", {}, metrics=epochs, curves=rows)
    curves = evaluate.plot(training, LatentUse(torch.ones(2), torch.ones(2)), {})["learning_curves"]
    assert curves.axes[0].lines[-1].get_xdata() == [marked]


MU, KL = torch.tensor([0.5, -0.5, 1.0]), torch.tensor([0.1, 3.0, 1.0])


def drawn(decoder, **of_classes):
    """The figures of a model that codes all its images, three pixels in a row, by the same MU."""
    model = VAE(VAEConfig((1, 1, 3), "mlp", (), "relu", 3, "bernoulli", 1.0, **of_classes)).eval()
    model.decoder = decoder
    labels = torch.zeros(4, dtype=torch.int64) if of_classes else None
    pixels = torch.zeros(4, 1, 1, 3, dtype=torch.uint8)
    given = Encoded(MU.expand(4, 3), torch.zeros(4, 3), pixels, "none", 0, labels)
    return evaluate.draw(model, pixels, given, LatentUse(KL, torch.ones(3)), 0)


def rows_by_label(figure):
    """The row of pixels that stands beside each label of a grid of such images."""
    axes = figure.axes[0]
    picture = np.asarray(axes.images[0].get_array())
    return {text.get_text(): picture[int((1 - text.get_position()[1]) * len(picture))] for text in axes.texts}


class ShowsZ(nn.Module):
    """A "decoder" that gives each dimension of z a pixel."""

    def forward(self, z):
        return z[:, None, None]


def test_each_row_of_the_traversals_moves_the_dimension_of_its_label_and_the_largest_kl_comes_first():
    found = rows_by_label(drawn(ShowsZ())["traversals"])
    assert list(found) == ["z[1]\n3.0 nats", "z[2]\n1.0 nats", "z[0]\n0.1 nats"]
    for dimension, row in zip((1, 2, 0), found.values(), strict=True):
        z = MU.repeat(len(evaluate.TRAVERSAL), 1)
        z[:, dimension] = torch.tensor(evaluate.TRAVERSAL)
        for pixel in range(3):
            np.testing.assert_allclose(row[pixel::4], z[:, pixel].sigmoid(), rtol=1e-5)  # a line after each image


class GreyOfTheClass(nn.Module):
    """A "decoder" whose images are darker for a later class."""

    def forward(self, z, label):
        return (0.8 - 0.3 * label).logit()[:, None, None, None].expand(len(z), 1, 1, 3)


def test_beside_the_samples_of_a_class_stands_its_name():
    found = rows_by_label(drawn(GreyOfTheClass(), condition="label", classes=("cat", "dog", "owl"))["samples"])
    assert {name: row[::2].tolist() for name, row in found.items()} == {
        name: pytest.approx([grey] * 20) for name, grey in {"cat": 0.8, "dog": 0.5, "owl": 0.2}.items()
    }


def test_metrics_carry_their_protocol_in_their_names(reported):
    folder = reported.folder
    assert set(metrics(folder)) == {
        "test/elbo",
        "test/recon",
        "test/kl",
        "test/nll_iw1",
        "test/nll_iw2",
        "test/nll_iw5",
        "test/nll_iw5_stderr",
        "test/bits_per_dim",
        "test/active_units",
        "test/train_test_gap",
        "test/train_test_gap_stderr",
        "test/mutual_information_nce",
        "test/mutual_information_nce_ceiling",
        "test/marginal_kl_nce",
        "test/marginal_kl_fitted",
        "test/marginal_kl_fitted_stderr",
        "test/mutual_information_fitted",
        "test/failed_checks",
        *OF_SAMPLES,
    }
    assert_recipes_are_held_to_what_is_measured(
        metrics(folder), "classifier", "amortisation_gap", "probe_accuracy", "sample_label_accuracy"
    )
    written = ["aggregate.safetensors", "figures", "health.json", "latents.csv", "metrics.json", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == written


def test_a_model_of_binary_pixels_is_shown_no_other_in_the_whole_evaluation(trained, monkeypatch):
    posterior, seen = VAE.posterior, set()

    def watched(model, x, label=None):
        seen.update(x.unique().tolist())
        return posterior(model, x, label)

    monkeypatch.setattr(VAE, "posterior", watched)
    trained.evaluate(evaluate__quality_images=0)
    assert seen == {0, 1}


def test_metrics_agree_with_one_another(reported):
    found = metrics(reported.folder)
    assert found["test/elbo"] == pytest.approx(found["test/recon"] - found["test/kl"], rel=1e-5)
    assert found["test/elbo"] <= -found["test/nll_iw5"]
    assert found["test/bits_per_dim"] == pytest.approx(found["test/nll_iw5"] / (64 * math.log(2)))
    assert 0 < found["test/nll_iw5_stderr"] < 5
    assert found["test/nll_iw5"] < found["test/nll_iw2"] < found["test/nll_iw1"]
    assert found["test/mutual_information_nce"] + found["test/marginal_kl_nce"] == pytest.approx(found["test/kl"])
    assert found["test/mutual_information_nce"] < found["test/mutual_information_nce_ceiling"] == math.log(50)
    left = found["test/mutual_information_fitted"] + found["test/marginal_kl_fitted"]
    assert left == pytest.approx(found["test/kl"])


def test_the_report_says_which_limits_the_model_keeps(trained, capsys):
    limits = {
        "min_active_share": 0.0,
        "max_train_test_gap": None,
        "max_bound_drift": 0.0,
        "max_prior_gap": 1.0,
        "max_copied_share": None,
    }
    folder = trained.evaluate(**{f"health__{name}": limit for name, limit in limits.items()})
    found = read_json(folder / "health.json")
    assert {name: check["healthy"] for name, check in found["checks"].items()} == {
        "collapsed_units": True,
        "unconverged_bound": False,
        "prior_hole": True,
    }
    assert not found["healthy"]
    assert metrics(folder)["test/failed_checks"] == 1
    samples, bound, end = capsys.readouterr().out.splitlines()[-3:]
    assert samples == "evaluate: codes and samples ..."
    assert re.fullmatch(r"evaluate: importance bound of 50 images with \d+ samples each \.\.\.", bound)
    assert end.endswith(f"{folder}; unhealthy: unconverged_bound")


def test_the_collapsed_recipe_is_found_by_evaluate_and_refused_by_export(workplace, monkeypatch):
    recipe = read_yaml(RECIPES / "collapsed.yaml")["params"]
    settings = {f"train__{name}": value for name, value in recipe["train"].items()}
    workplace.train(**settings)
    folder = workplace.evaluate(**settings)
    assert metrics(folder)["test/active_units"] == 0
    assert not read_json(folder / "health.json")["checks"]["collapsed_units"]["healthy"]
    arguments = ["export", workplace.prepared, "models/checkpoint", str(folder), "models/export", "reports/export"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(
        UserError, match=r"health.json: 0 of 3 latent dimensions are active, .*\(try a smaller train.beta"
    ):
        export.main()
    assert not Path("models/export").exists()
    assert recipe["export"]["allow_unhealthy"]  # so that `make results RECIPE=collapsed` comes to its end


def test_annealing_and_the_amortisation_gap_are_measured_where_they_are_asked_for(trained):
    asked = {"amortisation_images": 3, "ais_images": 4, "ais_steps": 20, "importance_samples": 200}
    found = metrics(trained.evaluate(**{f"evaluate__{name}": value for name, value in asked.items()}))
    assert found["test/nll_iw200_above_ais20"] == pytest.approx(0, abs=1)
    assert found["test/nll_ais20_stderr"] > 3 * found["test/nll_iw200_above_ais20_stderr"]
    assert -1 < found["test/amortisation_gap"] < 10


def test_more_importance_samples_tighten_the_bound(trained):
    few = metrics(trained.evaluate(evaluate__importance_samples=1))
    many = metrics(trained.evaluate(evaluate__importance_samples=200))
    assert many["test/nll_iw200"] < few["test/nll_iw1"]
    assert few["test/nll_iw1"] == pytest.approx(-many["test/elbo"], abs=1.0)


def test_the_memory_limit_does_not_change_the_result(trained, reported):
    for limit in (3, 7, 1000):  # where there it was 100
        found = metrics(trained.evaluate(evaluate__batch_log_weights=limit))
        assert found == pytest.approx(metrics(reported.folder), rel=1e-4)


def test_the_same_seed_gives_the_same_report(trained, reported):
    first, again, other = reported.folder, trained.evaluate("again"), trained.evaluate("other", evaluate__seed=1)
    assert metrics(first) == metrics(again)
    assert (first / "latents.csv").read_bytes() == (again / "latents.csv").read_bytes()
    for name in ALWAYS:
        assert (first / "figures" / f"{name}.png").read_bytes() == (again / "figures" / f"{name}.png").read_bytes()
    assert metrics(first)["test/nll_iw5"] != metrics(other)["test/nll_iw5"]
    assert (first / "figures" / "samples.png").read_bytes() != (other / "figures" / "samples.png").read_bytes()


def test_the_kl_of_the_dimensions_adds_up(reported):
    folder = reported.folder
    rows = read_csv(folder / "latents.csv")
    assert [row["dimension"] for row in rows] == [0, 1, 2]
    assert sum(row["kl"] for row in rows) == pytest.approx(metrics(folder)["test/kl"], rel=1e-4)
    assert sum(row["variance"] > 0.01 for row in rows) == metrics(folder)["test/active_units"]


def test_every_figure_is_drawn(reported):
    assert figures(reported.folder) == ALWAYS


def test_two_latents_have_a_manifold(workplace):
    workplace.train(model__latent_dim=2)
    assert figures(workplace.evaluate()) == ALWAYS | {"manifold"}


def test_the_aggregate_density_is_written_judged_and_changes_no_likelihood(trained, reported):
    without = metrics(reported.folder)
    assert load_aggregate(reported.folder, 3) is None
    folder = trained.evaluate(evaluate__aggregate_components=4)
    found = metrics(folder)
    assert load_aggregate(folder, 3).mixture().mu.shape == (4, 3)
    assert {name: found[name] for name in without} == without
    assert {"test/aggregate_fid_random_conv", "test/aggregate_memorisation_ratio"} <= set(found)
    assert figures(folder) == ALWAYS | {"aggregate_samples", "aggregate_nearest_training"}


def test_weights_of_inception_that_are_not_there_end_the_stage_in_one_line(trained):
    with pytest.raises(UserError, match=r"evaluate\.inception_weights: nowhere\.pth not found; expected a file"):
        trained.evaluate(evaluate__inception_weights="nowhere.pth")
    assert list(Path().rglob("reports/*")) == []


def test_an_autoencoder_has_a_reconstruction_and_no_likelihood(workplace, capsys):
    workplace.train(train__objective="autoencoder")
    folder = workplace.evaluate()
    assert set(metrics(folder)) == {"test/recon", "test/active_units", "test/failed_checks", *OF_SAMPLES}
    assert figures(folder) == ALWAYS - {"importance_bound"}
    assert "evaluate: recon -" in capsys.readouterr().out


def test_a_gaussian_model_is_measured_in_bits_of_8_bit_data(workplace):
    workplace.train(model__likelihood="gaussian", train__binarize="none")
    found = metrics(workplace.evaluate())
    by_midpoint = found["test/nll_iw5"] / (64 * math.log(2)) + math.log2(255)
    # Black and white take what lies beyond them, so the integral over the bins is more than density times width.
    assert 2 < found["test/bits_per_dim"] < by_midpoint - 1


@pytest.mark.parametrize("likelihood", ["continuous_bernoulli", "discretized_logistic", "logistic_mixture"])
def test_every_likelihood_is_measured_in_bits_of_the_same_data(workplace, likelihood):
    workplace.train(model__likelihood=likelihood, train__binarize="none", train__epochs=4)
    found = metrics(workplace.evaluate())
    assert 2 < found["test/bits_per_dim"] < 9
    if likelihood != "continuous_bernoulli":  # the nll is already one of the 256 values
        assert found["test/bits_per_dim"] == pytest.approx(found["test/nll_iw5"] / (64 * math.log(2)))


def test_evaluation_joins_the_row_of_the_training(reported):
    folder, store = reported.folder, reported.store
    run_id = read_json(reported.checkpoint / "run.json")["run_id"]
    assert read_json(folder / "run.json")["run_id"] == run_id
    row = store.get_run(run_id)
    assert metrics(folder).items() <= row.data.metrics.items()
    assert row.data.params["evaluate.importance_samples"] == "5"
    assert {item.path for item in store.list_artifacts(run_id, "figures")} == {f"figures/{n}.png" for n in ALWAYS}
    assert {item.path for item in store.list_artifacts(run_id)} == {"train", "evaluate", "figures"}


def test_evaluation_with_other_params_opens_a_row_that_continues_the_first(workplace, store):
    workplace.train()
    first, again = (read_json(workplace.evaluate(evaluate__seed=seed) / "run.json")["run_id"] for seed in (0, 1))
    row = store.get_run(again)
    assert row.data.tags["continues"] == first
    assert row.data.params["evaluate.seed"] == "1"
    assert row.data.params["model.latent_dim"] == "3"
    assert len(store.get_metric_history(again, "val/elbo")) == 2


def test_what_takes_long_is_told_of_beforehand_and_the_result_in_one_line(reported):
    *long, line = reported.printed.splitlines()
    assert [told.split(" of ")[0] for told in long] == ["evaluate: codes and samples ...", "evaluate: importance bound"]
    found = metrics(reported.folder)
    assert line.startswith(f"evaluate: elbo {found['test/elbo']:.2f}, recon {found['test/recon']:.2f}, kl ")
    assert f"on 50 test images -> {reported.given}" in line


def test_a_checkpoint_of_another_image_shape_is_refused(trained):
    trained.prepare({"train": 9, "val": 9, "test": 9}, size=6)
    expected = (
        r"^data/other: images are \[1, 6, 6\]; expected \[1, 8, 8\], the shape that the checkpoint was trained on$"
    )
    assert_nothing_was_written(trained, expected)


@pytest.mark.parametrize("split", ["test", "train"])
def test_one_image_is_too_few(trained, split):
    trained.prepare({"train": 9, "val": 9, "test": 9, split: 1})
    name = {"train": "training"}.get(split, split)
    assert_nothing_was_written(trained, rf"^data/other: holds 1 {name} image; expected at least 2: one has no spread$")


def test_a_missing_checkpoint_is_named(workplace):
    expected = r"^models/checkpoint/config.json: not found; expected a file that an earlier stage writes$"
    assert_nothing_was_written(workplace, expected)


def test_where_the_device_s_memory_ends_fewer_log_weights_are_asked_for(trained, monkeypatch):
    def measure(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(evaluate, "measure", measure)
    assert_nothing_was_written(trained, r"expected a smaller evaluate.batch_log_weights$")


def test_weights_that_do_not_fit_are_named(trained):
    config = Path("models/checkpoint/config.json")
    config.write_text(config.read_text().replace('"latent_dim": 3', '"latent_dim": 4'))
    assert_nothing_was_written(
        trained, r"model\.safetensors: decoder\.0\.weight has shape \[16, 3\]; expected \[16, 4\]"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(trained):
    with pytest.raises(UserError, match=r"train.device is 'cuda' but no CUDA device is available"):
        trained.evaluate(train__device="cuda")


def test_a_failure_keeps_the_report_of_the_last_evaluation(trained):
    before = metrics(trained.evaluate())
    Path("models/checkpoint/model.safetensors").unlink()
    with pytest.raises(UserError, match="not found"):
        trained.evaluate()
    assert metrics(Path("reports/evaluate")) == before
    assert [path.name for path in Path("reports").iterdir()] == ["evaluate"]


@pytest.mark.parametrize("objective", ["stl", "iwae", "dreg"])
def test_whatever_was_trained_the_elbo_is_reported(workplace, objective):
    folder = workplace.train(train__objective=objective, train__importance_samples=3)
    row = read_csv(folder / "history.csv")[-1]
    assert row["train/elbo"] == pytest.approx(row["train/recon"] - row["train/kl"])
    found = metrics(workplace.evaluate())
    assert found["test/elbo"] == pytest.approx(found["test/recon"] - found["test/kl"])


@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_a_learned_prior_is_trained_and_measured(workplace, prior):
    folder = workplace.train(model__prior=prior, model__prior_components=7, train__epochs=3)
    assert load_checkpoint(folder).model.config.prior == prior
    found = metrics(workplace.evaluate())
    assert found["test/elbo"] == pytest.approx(found["test/recon"] - found["test/kl"])
    assert_in_order_over_the_same_samples(found)
    assert found["test/kl"] > 0


@pytest.mark.parametrize(
    "groups",
    [
        {"model__latent_dim": 4},
        {"model__group_network": "conv", "model__hidden": [4], "model__latent_dim": 32},
    ],
    ids=["dense", "conv"],
)
def test_a_ladder_is_trained_and_measured(workplace, groups):
    """Each bound and gap that a Gaussian posterior has, but for the information that asks it for others' codes."""
    folder = workplace.train(
        model__network="ladder", model__latent_groups=2, train__precision="bf16", train__epochs=3, **groups
    )
    assert load_checkpoint(folder).model.config.latent_groups == 2
    for row in read_csv(folder / "history.csv"):
        groups = row["val/kl_group_1"], row["val/kl_group_2"]
        assert min(groups) > 0
        assert sum(groups) == pytest.approx(row["val/kl"], rel=1e-5)
    found = metrics(workplace.evaluate(evaluate__amortisation_images=5))
    assert found["test/elbo"] == pytest.approx(found["test/recon"] - found["test/kl"])
    assert_in_order_over_the_same_samples(found)
    assert found["test/mutual_information_fitted"] == found["test/kl"] - found["test/marginal_kl_fitted"]
    assert -1 < found["test/amortisation_gap"] < 10
    assert "test/mutual_information_nce" not in found


@pytest.mark.parametrize("posterior", ["iaf", "coupling"])
def test_a_flow_posterior_is_trained_and_measured(workplace, posterior):
    """Each bound and gap that a Gaussian posterior has, but for the information that asks it for others' codes."""
    folder = workplace.train(model__posterior=posterior, model__flow_hidden=[16], train__epochs=3)
    assert load_checkpoint(folder).model.flow is not None
    found = metrics(workplace.evaluate(evaluate__amortisation_images=5))
    assert found["test/elbo"] == pytest.approx(found["test/recon"] - found["test/kl"])
    assert_in_order_over_the_same_samples(found)
    assert found["test/mutual_information_fitted"] == found["test/kl"] - found["test/marginal_kl_fitted"]
    assert -1 < found["test/amortisation_gap"] < 10
    assert "test/mutual_information_nce" not in found
