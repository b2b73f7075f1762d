import csv
import io
import json
import math
import re
import sys
from datetime import UTC, datetime

import pytest

from pipeline.cli import main
from pipeline.commands.ranking import best_is_lowest, differing, ranked
from pipeline.record import Record
from pipeline.tracking import rows as tracking_rows
from pipeline.tracking.rows import Row
from pipeline.tracking.runs import log_stage
from pipeline.tracking.training import training_run


def row(name, status="finished", params=None, metrics=None, data="da7a" * 16):
    shared = {"model.latent_dim": "12", "train.beta": "1.0", "train.epochs": "100"}
    return Row(
        run_id=name.encode().hex().ljust(32, "0"),
        name=name,
        status=status,
        started=datetime(2026, 3, 14, 15, 9, tzinfo=UTC),
        params=shared | (params or {}),
        metrics=metrics or {},
        tags={"data_sha256": data},
    )


def measured(elbo, kl=20.0):
    recon = elbo + kl
    return {
        "test/elbo": elbo,
        "test/recon": recon,
        "test/kl": kl,
        "test/nll_iw5000": -elbo - 4,
        "test/active_units": 12.0,
    }


THREE = [
    row("newest", "running", {"train.beta": "4.0"}, {"val/elbo": -140.0}),
    row("worse", metrics=measured(-120.25)),
    row("better", params={"model.latent_dim": "5"}, metrics=measured(-106.421)),
]


@pytest.fixture
def compare(monkeypatch, capsys):
    """`vae compare` over given rows, in a terminal of some width; its exit code and what it printed."""

    def run(rows, *arguments, columns=80):
        monkeypatch.setattr(tracking_rows, "read_rows", lambda: rows)
        return vae_compare(monkeypatch, capsys, *arguments, columns=columns)

    return run


def vae_compare(monkeypatch, capsys, *arguments, columns=80):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as ended:
        main(["compare", *arguments])
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


def order(out):
    """The names of the rows, from the top."""
    return [line.split()[0] for line in out.splitlines() if line.split()[:1] and line.split()[0] in NAMES]


NAMES = {"newest", "worse", "better"}


def test_before_any_run_is_evaluated_the_validation_elbo_decides(compare):
    worse, better = (
        row(name, "running", metrics={"val/elbo": elbo}) for name, elbo in (("worse", -9.5), ("better", -8.5))
    )
    code, out, err = compare([worse, better])
    assert (code, err) == (0, "")
    assert order(out) == ["better", "worse"]
    assert out.endswith("2 runs, highest val/elbo first\n")


def test_the_best_run_is_first_and_the_unfinished_last(compare):
    code, out, err = compare(THREE)
    assert (code, err) == (0, "")
    assert order(out) == ["better", "worse", "newest"]
    assert "-106.42" in out
    assert "3 runs, highest test/elbo first\n" in out
    assert "running" in out


def test_only_params_that_differ_are_shown(compare):
    _, out, _ = compare(THREE)
    assert "latent_dim" in out
    assert "beta" in out
    assert "epochs" not in out
    _, out, _ = compare(THREE[1:])
    assert "beta" not in out
    assert "running" not in out


def test_a_param_that_an_unfinished_run_lacks_is_no_difference():
    later = row("later", params={"evaluate.seed": "0"})
    assert differing([row("earlier"), later]) == []
    assert differing([row("earlier"), later, row("last", params={"evaluate.seed": "1"})]) == ["evaluate.seed"]


def test_of_a_likelihood_bound_in_its_negative_form_less_is_better(compare):
    _, out, _ = compare(THREE, "--by", "test/nll_iw5000")
    assert order(out) == ["better", "worse", "newest"]
    assert "lowest test/nll_iw5000 first" in out


def test_of_the_importance_bound_each_run_s_own_k_is_shown_and_its_curve_on_demand(compare):
    curve = {f"test/nll_iw{k}": 100 - k / 1000 for k in (1, 10, 100, 500)}
    rows = [row("long", metrics=measured(-106.4) | curve), row("short", metrics=measured(-120.5) | curve)]
    del rows[1].metrics["test/nll_iw5000"]
    assert bounds(compare(rows, columns=200)) == ["nll_iw500", "nll_iw5000"]
    assert bounds(compare(rows, "--curve", columns=200)) == [f"nll_iw{k}" for k in (1, 10, 100, 500, 5000)]


def bounds(ended):
    """The importance bounds among the headings of a table, from the left."""
    return re.findall(r"nll_iw\d+", ended[1].partition("─")[0])


def test_the_user_may_turn_the_order_round(compare):
    _, out, _ = compare(THREE, "--by", "test/elbo", "--lowest")
    assert order(out) == ["worse", "better", "newest"]
    _, out, _ = compare(THREE, "--by", "test/nll_iw5000", "--highest")
    assert order(out) == ["worse", "better", "newest"]


@pytest.mark.parametrize(
    ("metric", "lowest"),
    [("test/elbo", False), ("test/fid_classifier", True), ("test/a_figure_of_the_user_s_own", False)],
)
def test_the_name_of_a_metric_says_which_way_is_better_and_of_an_unknown_one_more_is(metric, lowest):
    assert best_is_lowest(metric) is lowest


def test_a_value_that_is_no_number_is_never_the_best():
    rows = [row("nan", metrics={"a": math.nan}), row("less", metrics={"a": 1.0}), row("more", metrics={"a": 2.0})]
    assert [found.name for found in ranked(rows, "a", lowest_first=False)] == ["more", "less", "nan"]
    assert [found.name for found in ranked(rows, "a", lowest_first=True)] == ["less", "more", "nan"]


def test_a_limit_keeps_the_best(compare):
    _, out, _ = compare(THREE, "--limit", "2")
    assert order(out) == ["better", "worse"]
    assert "the best 2 of 3 runs, highest test/elbo first" in out


def test_before_any_test_split_was_measured_the_runs_are_shown_all_the_same(compare):
    code, out, _ = compare(THREE[:1])
    assert (code, order(out)) == (0, ["newest"])


def test_a_metric_that_no_run_has_is_answered_with_those_near_it(compare):
    code, out, err = compare(THREE, "--by", "nll")
    assert (code, out) == (1, "")
    assert err == "error: --by is nll, a metric that no run has; expected one such as test/nll_iw5000\n"
    assert compare(THREE, "--by", "test/elba")[2].endswith("expected one such as test/elbo, test/kl, test/recon\n")


def test_other_data_shows_because_its_metrics_do_not_compare(compare):
    _, out, _ = compare([*THREE, row("other", metrics=measured(-1.0), data="bc87" * 16)], columns=120)
    assert "sha256" in out
    assert "bc87bc87" in out
    assert "sha256" not in compare(THREE, columns=120)[1]


@pytest.mark.parametrize("param", ["model.likelihood", "model.condition", "train.binarize"])
def test_bounds_of_another_density_are_said_not_to_compare(compare, param):
    rows = [row(name, params={param: name}, metrics=measured(-100.0)) for name in ("one", "other")]
    assert f"nats of runs that differ in {param} do not compare" in compare(rows)[1]
    assert "do not compare" not in compare(THREE)[1]


def test_bounds_on_other_data_are_said_not_to_compare(compare):
    digits, faces = (row(name, metrics=measured(-100.0), data=name * 16) for name in ("da7a", "face"))
    assert "nats of runs that differ in data (sha256) do not compare" in compare([digits, faces])[1]
    faces.params["model.likelihood"], digits.params["model.likelihood"] = "gaussian", "bernoulli"
    assert "differ in data (sha256) or model.likelihood do not compare" in compare([digits, faces])[1]
    faces.tags.clear()  # of a run that was started and has not told yet
    assert "data" not in compare([digits, faces])[1]


@pytest.mark.parametrize("columns", [45, 60, 80, 100, 300])
def test_the_table_fits_the_terminal_and_what_does_not_fit_is_counted(compare, columns):
    values = {f"train.a_rather_long_name_{letter}": f"value_{letter}" for letter in "abcdefghij"}
    rows = [row("a-run-with-a-name-of-37-characters---", params=values), row("b", params=dict.fromkeys(values, "0"))]
    _, out, _ = compare(rows, columns=columns)
    assert max(map(len, out.splitlines())) <= columns
    table, _, below = out.partition("2 runs")
    left_out = sum(value not in table for value in values.values()) + ("2026-" not in table) + ("612d72" not in table)
    told = f"no room for {left_out} more columns: a wider terminal, or --format csv, shows all" if left_out else ""
    assert " ".join(below.split()).endswith(f"test/elbo first {told}".strip())
    assert "value_a" in table
    assert ("a-run-with-a-name-of-37-characters---" in table) == (columns == 300)
    assert ("a-run-with-…haracters---" in table) == (columns < 300)
    assert ("2026-" in table) == (columns == 300)


def test_where_the_images_lie_is_shown_last_of_the_params_and_the_metrics(compare):
    places = {"prepare.path": "photos/of/many/people", "prepare.root": "data/elsewhere"}
    rows = [row("one", params=places, metrics=measured(-100.0)), row("other", metrics=measured(-101.0))]
    rows[1].params.update(dict.fromkeys(places, "data"))
    _, out, _ = compare(rows, columns=60)
    assert all(name in out for name in ("elbo", "recon", "kl", "nll_iw5000", "active"))
    assert not any(place in out for place in places.values())
    assert "no room for 3 more columns: a wider terminal" in out
    assert all(place in compare(rows, columns=120)[1] for place in places.values())


def test_json_holds_everything(compare):
    code, out, _ = compare([*THREE, row("broken", metrics={"test/elbo": math.nan})], "--format", "json")
    assert code == 0
    first, *_, last = json.loads(out)
    assert (first["name"], first["status"], first["started"]) == ("better", "finished", "2026-03-14T15:09:00+00:00")
    assert first["params"] == {"model.latent_dim": "5", "train.beta": "1.0", "train.epochs": "100"}
    assert first["metrics"] == measured(-106.421)
    assert first["tags"] == {"data_sha256": "da7a" * 16}
    assert (last["name"], last["metrics"]) == ("broken", {"test/elbo": None})


def test_csv_has_a_column_for_each_param_and_metric(compare):
    _, out, _ = compare(THREE, "--format", "csv", columns=20)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [found["name"] for found in rows] == ["better", "worse", "newest"]
    assert float(rows[0]["test/elbo"]) == -106.421
    assert (rows[0]["train.epochs"], rows[2]["test/elbo"], rows[2]["val/elbo"]) == ("100", "", "-140.0")


def test_runs_of_a_real_store_are_compared(store, monkeypatch, capsys):
    for beta, elbo in ((1.0, -106.0), (4.0, -120.0)):
        params = {"model.latent_dim": 2, "train.beta": beta}
        with training_run(params, {}) as run:
            run.finish(Record("train", run.id, params))
        log_stage([Record("train", run.id, params)], Record("evaluate", "", {}, metrics={"test/elbo": elbo}))
    code, out, err = vae_compare(monkeypatch, capsys)
    assert (code, err) == (0, "")
    best, second = (line.split() for line in out.splitlines() if "after evaluate" in line)
    assert (best[3:5], second[3:5]) == (["-106", "1.0"], ["-120", "4.0"])
    assert "2 runs, highest test/elbo first" in out


def test_without_a_store_one_line_says_how_to_get_runs(tmp_path, monkeypatch, capsys):
    code, out, err = vae_compare(monkeypatch, capsys)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {tmp_path}/mlflow.db: not found; expected the runs that `make repro` leaves")


def test_where_mlflow_is_not_installed_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "pipeline.tracking.rows")
    monkeypatch.delitem(sys.modules, "pipeline.tracking.store", raising=False)
    code, out, err = vae_compare(monkeypatch, capsys)
    assert (code, out) == (1, "")
    assert err == ("error: vae compare needs mlflow, which is not installed; install it with: pip install '.[train]'\n")
