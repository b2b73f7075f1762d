import dataclasses

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
