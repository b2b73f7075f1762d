"""What README.md and docs/ say is what runs left in reports/ (the default one, the sweep's, the paper's), as committed.

A run of one's own on another processor changes the last digits in reports/, which is no fault of the documents.
And the table of recipes is that of recipes/, but for collapsed, which is in no table.
"""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from missing import skip_unless_ci

from pipeline.params import read_yaml
from pipeline.recipe import load_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted({path.stem for path in (ROOT / "recipes").glob("*.yaml")} - {"collapsed"})


def lines_of(name):
    if not shutil.which("git") or not (ROOT / ".git").exists():
        skip_unless_ci("what is committed is in no git repository here")
    shown = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()


def committed(name):
    return " ".join(" ".join(lines_of(name)).split())


def told(value, digits=2):
    """A number as the documents have it, with a minus sign in place of a hyphen."""
    return f"{value:.{digits}f}".replace("-", "−")


@pytest.fixture(scope="module")
def metrics():
    return {
        name.rpartition("/")[2]: value
        for stage in ("evaluate", "export")
        for name, value in json.loads(committed(f"reports/{stage}/metrics.json")).items()
    }


def assert_told(document, *expected):
    text = committed(document)
    assert [part for part in expected if part not in text] == []


def test_the_readme_tells_the_results_of_the_default_run(metrics):
    elbo, recon, kl = (told(metrics[name]) for name in ("elbo", "recon", "kl"))
    quality = [told(metrics[f"{of}{name}_classifier"]) for of in ("", "yardstick_") for name in ("precision", "recall")]
    assert_told(
        "README.md",
        f"| {elbo} ({recon} − {kl}) |",
        f"| {told(metrics['nll_iw5000'])} ± {told(metrics['nll_iw5000_stderr'])} |",
        f"| bits per binary pixel | {told(metrics['bits_per_dim'])} |",
        f"| {metrics['active_units']} of 12 |",
        "| {}, {} ({}, {}) |".format(*quality),
        f"| {metrics['decoder_max_abs_error']:.1e} |",
    )


def test_the_readme_shows_what_the_default_run_printed(metrics):
    elbo, recon, kl, nll = (f"{metrics[name]:.2f}" for name in ("elbo", "recon", "kl", "nll_iw5000"))
    assert_told(
        "README.md",
        f"evaluate: elbo {elbo}, recon {recon}, kl {kl}, nll_iw5000 {nll}, ",
        f"largest pixel error {metrics['decoder_max_abs_error']:.1e};",
        f"(nll_iw {nll}; there was no champion)",
    )


def test_the_results_tell_those_of_the_default_run(metrics):
    found = {name: told(value) for name, value in metrics.items()}
    kid = {of: told(metrics[f"{of}kid_classifier"], 3) for of in ("", "yardstick_")}
    kid_stderr = {of: told(metrics[f"{of}kid_classifier_stderr"], 3) for of in ("", "yardstick_")}
    rows = [
        f"| {found[f'{of}fid_classifier']} | {kid[of]} ± {kid_stderr[of]} | "
        + " | ".join(found[f"{of}{name}_classifier"] for name in ("precision", "recall", "density", "coverage"))
        for of in ("", "yardstick_")
    ]
    assert_told(
        "docs/results.md",
        f"test ELBO **{found['elbo']}**, −log p(x) **{found['nll_iw5000']} ± {found['nll_iw5000_stderr']}** (K = 5000)",
        f"the bound moves by {told(metrics['nll_iw2500'] - metrics['nll_iw5000'])} nats",
        f"cost {told(metrics['train_test_gap'], 1)} ± {told(metrics['train_test_gap_stderr'], 1)} nats more",
        f"the codes are {told(metrics['marginal_kl_fitted'], 1)} nats from the prior",
        f"between {found['mutual_information_nce']} nats, an estimate that is at its ceiling",
        f"log 528 = {found['mutual_information_nce_ceiling']}, and {found['mutual_information_fitted']}, what",
        f"it reads {told(metrics['classifier_accuracy'], 3)} of the test images",
        *rows,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_one_row_in_the_table_with_the_bounds_of_its_target(name):
    table = [line for line in lines_of("docs/results.md") if line.startswith("|")]
    rows = [line.split(" | ") for line in table if f"](../recipes/{name}.yaml)" in line]
    assert len(rows) == 1
    written = re.findall(r"([≥≤]) (−?\d{1,3}(?:,\d{3})*(?:\.\d+)?)", rows[0][2])
    told_bounds = {(sign, float(number.replace("−", "-").replace(",", ""))) for sign, number in written}
    target = load_recipe(ROOT / "recipes" / f"{name}.yaml", read_yaml(ROOT / "params.yaml")).target
    signs = {"at_least": "≥", "at_most": "≤"}
    assert {(signs[side], bound) for limits in target.values() for side, bound in limits.items()} <= told_bounds


def ends_of(name, curve_of, value_of):
    """The values of the last line of each of a paper's curves."""
    lines = sorted(csv.DictReader(lines_of(f"reports/paper/{name}.csv")), key=lambda line: float(line["samples"]))
    return {
        (line[curve_of], line["train.objective"]): [float(line[f"{split}_{value_of}"]) for split in ("train", "test")]
        for line in lines
    }


@pytest.mark.parametrize(
    ("name", "sizes", "form"), [("mnist", (3, 5, 10, 20, 200), ".1f"), ("frey", (2, 5, 10, 20), ",.0f")]
)
def test_the_paper_s_second_figure_is_told_by_the_ends_of_its_curves(name, sizes, form):
    ends = ends_of(name, "model.latent_dim", "elbo")
    for size in sizes:
        values = ends[str(size), "elbo"] + ends[str(size), "wake_sleep"]
        cells = " | ".join(format(value, form).replace("-", "−") for value in values)
        assert_told("docs/paper.md", f"| {size} | {cells} |")


def test_the_paper_s_third_figure_is_told_by_the_ends_of_its_curves():
    ends = ends_of("likelihood", "prepare.train_images", "log_p")
    for images in ("1000", "50000"):
        values = [ends.get((images, objective), ()) for objective in ("elbo", "wake_sleep", "mcem")]
        cells = " | ".join(" | ".join(told(value, 1) for value in pair) or "– | –" for pair in values)
        assert_told("docs/paper.md", f"| {int(images):,} | {cells} |")


def test_rate_and_distortion_are_told_as_the_sweep_found_them():
    points = list(csv.DictReader(lines_of("reports/sweeps/rate-distortion.csv")))
    assert len(points) == 15
    rows = " ".join(lines_of("docs/results.md")).replace("**", "")
    for point in points:
        measured = [told(float(point[name])) for name in ("rate", "distortion", "elbo")]
        active = f"{float(point['active_units']):.0f}"
        cells = [point["model.latent_dim"], f"{float(point['train.beta']):g}", *measured, active]
        assert f"| {' | '.join(cells)} |" in rows
