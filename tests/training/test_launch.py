import logging
import socket

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from pipeline.errors import UserError
from pipeline.training.launch import first_to_fail, launch


def failure(exit_code, second):
    ended = ProcessFailure(local_rank=0, pid=1, exitcode=exit_code, error_file="no file")
    ended.timestamp = second
    return ended


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_is_told_of_and_not_the_one_that_ended_for_want_of_it(killed):
    failures = {killed: failure(-9, 8), 1 - killed: failure(1, 8)}
    rank, found = first_to_fail(dict(sorted(failures.items())))
    assert (rank, found.exitcode) == (killed, -9)


def test_of_ranks_that_ended_themselves_the_earlier_is_told_of():
    rank, _ = first_to_fail({0: failure(1, 9), 1: failure(1, 8)})
    assert rank == 1


@pytest.mark.parametrize("exit_code", [-15, 143])
def test_a_rank_that_the_launcher_stopped_is_not_told_of(exit_code):
    rank, _ = first_to_fail({0: failure(exit_code, 8), 1: failure(1, 8)})
    assert rank == 1


@pytest.fixture
def second_of_two(monkeypatch):
    """Where two machines meet, and that this is the second; with changes such as MASTER_PORT="http"."""

    def describe(**changes):
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "1", "OMP_NUM_THREADS": "1"}
        for name, value in (meeting | changes).items():
            monkeypatch.setenv(name, value)

    return describe


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MASTER_PORT", "http", "'http'; expected a whole number >= 0 and < 65536"),
        ("MASTER_PORT", "99999", "'99999'; expected a whole number >= 0 and < 65536"),
        ("MASTER_PORT", "0", "'0'; expected one port's number, the same for all"),
        ("NODE_RANK", "2", "'2'; expected a whole number >= 0 and < 2"),
        ("MASTER_ADDR", "300.1.1.1", r"'300.1.1.1' \(.*\); expected a host that is known here"),
        ("MASTER_ADDR", "two..dots", r"'two..dots' \(.*\); expected a host that is known here"),
    ],
)
def test_a_meeting_that_cannot_be_is_refused_by_its_variable(second_of_two, name, value, expected):
    second_of_two(**{name: value})
    with pytest.raises(UserError, match=f"^environment variable {name} is {expected}$"):
        launch(["-c", "pass"], devices=1, nodes=2)


def test_a_port_that_is_in_use_is_told_of_in_one_line(second_of_two):
    with socket.create_server(("", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        second_of_two(MASTER_PORT=endpoint.partition(":")[2], NODE_RANK="0")
        with pytest.raises(UserError, match=rf"^train: no meeting at {endpoint} \(.*; expected .*") as error:
            launch(["-c", "pass"], devices=1, nodes=2)
    assert "\n" not in str(error.value)


def test_of_a_rank_that_fails_one_line_speaks(capfd, caplog, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(UserError, match="^train: rank 0 ended with exit code 3, and the others with it$"):
        launch(["-c", "raise SystemExit(3)"], devices=1, nodes=1)
    assert capfd.readouterr().err == ""
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
