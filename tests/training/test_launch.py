import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from pipeline.training.launch import first_to_fail


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
