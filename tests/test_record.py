import dataclasses
import json

import pytest

from pipeline.errors import UserError
from pipeline.record import Record, read_record, write_record


def test_a_record_comes_back_with_its_curves(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,val/elbo\n1,-30.0\n")
    record = Record("train", "8f14", {"train.beta": 1.0}, {"git_dirty": "false"}, {"best_epoch": 1})
    write_record(tmp_path, record)
    found = read_record(tmp_path, "history.csv", ["history.csv"])
    assert found == dataclasses.replace(
        record, curves=[{"epoch": 1.0, "val/elbo": -30.0}], artifacts=[tmp_path / "history.csv"]
    )


def test_a_record_of_something_else_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"stage": "train", "colour": 1}')
    with pytest.raises(UserError, match=r"run\.json: not what a stage writes"):
        read_record(tmp_path)


CONTENT = {"stage": "train", "run_id": "8f14", "params": {}, "tags": {}, "metrics": {"best_epoch": 2, "kept_epoch": 3}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metrics": {}}, "metrics.best_epoch is missing; expected a file that train wrote"),
        ({"metrics": [1]}, "metrics is [1]; expected an object"),
        ({"metrics": None}, "metrics is None; expected an object"),
        ({"metrics": {"best_epoch": "2"}}, "metrics.best_epoch is '2'; expected a number"),
        ({"metrics": {"best_epoch": 0}}, "metrics.best_epoch is 0; expected an epoch from 1 to 3"),
        ({"metrics": {"best_epoch": 1.5}}, "metrics.best_epoch is 1.5; expected an epoch from 1 to 3"),
        ({"metrics": {"best_epoch": 2, "kept_epoch": 4}}, "metrics.kept_epoch is 4; expected an epoch from 1 to 3"),
        ({"params": "beta"}, "params is 'beta'; expected an object"),
        ({"tags": []}, "tags is []; expected an object"),
        ({"run_id": 7}, "run_id is 7; expected a text"),
        ({"key": None}, "key is None; expected a text"),
    ],
)
def test_a_field_of_another_kind_or_an_epoch_that_was_not_trained_is_named(tmp_path, changes, expected):
    (tmp_path / "history.csv").write_text("epoch,val/elbo\n1,-30.0\n2,-29.0\n3,-31.0\n")
    (tmp_path / "run.json").write_text(json.dumps(CONTENT | changes))
    with pytest.raises(UserError) as error:
        read_record(tmp_path, "history.csv")
    assert str(error.value) == f"{tmp_path / 'run.json'}: {expected}"


def test_a_record_without_curves_needs_no_epoch(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(CONTENT | {"stage": "evaluate", "metrics": {"test/elbo": -90.0}}))
    assert read_record(tmp_path).metrics == {"test/elbo": -90.0}
