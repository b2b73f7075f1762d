import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import UserError
from pipeline.training.launch import is_launched, launch, threads_per_rank
from pipeline.training.ranks import Ranks, ranks_of_environment, with_device

pytestmark = pytest.mark.slow  # all together
PROGRAM = str(Path(__file__).with_name("train_on_ranks.py"))


def train(folder, ranks, **options):
    """Two epochs, with the options of the program; what each rank ended with."""
    folder.mkdir(exist_ok=True)
    options["params"] = {"epochs": 2} | options.get("params", {})
    launch([PROGRAM, str(folder), json.dumps(options)], devices=ranks, nodes=1)
    return [load_file(folder / f"{rank}of{ranks}.safetensors") for rank in range(ranks)]


def assert_equal_to_rounding(found, expected):
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=0, atol=2e-5)
    torch.testing.assert_close(found["elbos"], expected["elbos"], rtol=1e-5, atol=0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    [trained] = train(tmp_path_factory.mktemp("alone"), 1)
    return trained


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return train(tmp_path_factory.mktemp("pair"), 2)


def test_two_ranks_hold_the_same_weights(pair):
    assert torch.equal(pair[0]["weights"], pair[1]["weights"])


def test_two_ranks_with_half_the_batch_take_the_steps_of_one(alone, pair):
    """After 20 steps; the sums are taken in another order, so they agree to rounding."""
    assert_equal_to_rounding(pair[0], alone)


def test_every_rank_reports_sums_over_all_examples(pair):
    assert torch.equal(pair[0]["elbos"], pair[1]["elbos"])


@pytest.mark.parametrize(("batch", "val"), [(64, 200), (599, 1)])
def test_two_ranks_share_the_optimal_sigma_of_a_batch(tmp_path, batch, val):
    """The last of 600 examples, after a batch of 599, is that of one rank, as is the one of validation.

    A prior over the weights, which is all ranks' together, counts once.
    """
    gaussian = {
        "config": {"likelihood": "gaussian", "sigma": "optimal"},
        "params": {
            "binarize": "none",
            "global_batch_size": batch,
            "optimizer": "adagrad",
            "weight_prior_precision": 100.0,
        },
        "val": val,
    }
    [alone] = train(tmp_path / "alone", 1, **gaussian)
    pair = train(tmp_path / "pair", 2, **gaussian)
    assert torch.equal(pair[0]["weights"], pair[1]["weights"])
    assert_equal_to_rounding(pair[0], alone)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job_with_an_error_and_one_rank_goes_on_from_there(alone, tmp_path, rank):
    with pytest.raises(UserError, match=rf"^train: rank {rank} ended with exit code -9, and the others with it$"):
        train(tmp_path, 2, dies=[rank, 17])
    [resumed] = train(tmp_path, 1)
    assert_equal_to_rounding(resumed, alone)


def test_two_ranks_go_on_where_one_was_killed(alone, tmp_path):
    with pytest.raises(UserError, match="rank 0 ended with exit code -9"):
        train(tmp_path, 1, dies=[0, 17])
    for resumed in train(tmp_path, 2):
        assert_equal_to_rounding(resumed, alone)


def test_a_nan_on_one_rank_sends_both_back_and_a_kill_after_it_changes_nothing(tmp_path, capfd):
    options = {"poison": [17, 2], "params": {"on_nonfinite": "rollback", "epochs": 3}}
    [alone] = train(tmp_path / "alone", 1, **options)
    assert alone["returns"] == 1
    with pytest.raises(UserError, match="rank 1 ended with exit code -9"):
        train(tmp_path / "pair", 2, dies=[1, 23], **options)
    pair = train(tmp_path / "pair", 2, **options)
    assert torch.equal(pair[0]["weights"], pair[1]["weights"])
    assert_equal_to_rounding(pair[0], alone)
    assert pair[0]["returns"] == 1


def test_a_nan_on_one_rank_stops_both_and_is_told_once(tmp_path, capfd):
    # Both end at the same moment, and either may be seen first.
    with pytest.raises(UserError, match=r"^train: rank [01] ended with exit code 1, and the others with it$"):
        train(tmp_path, 2, poison=[17, 1], hangs=True)
    assert capfd.readouterr().err.count("the loss is not finite at epoch 1") == 1


def test_an_exception_on_one_rank_is_shown_and_ends_both_without_waiting(tmp_path, capfd):
    # The other one has lost it at the same moment, and either may be seen first.
    with pytest.raises(UserError, match=r"^train: rank [01] ended with exit code 1, and the others with it$"):
        train(tmp_path, 2, raises=[1, 17], hangs=True)
    errors = capfd.readouterr().err
    assert errors.count("Traceback") == errors.count("RuntimeError: out of luck") == 1


def test_ranks_that_have_trained_leave_the_group(tmp_path):
    with pytest.raises(UserError, match=r"^train: rank [01] ended with exit code 99, and the others with it$"):
        train(tmp_path, 2, hangs=True)


def test_what_a_device_lacks_is_not_taken_for_a_lost_rank():
    for error in (torch.OutOfMemoryError("no memory"), torch.AcceleratorError("an illegal address")):
        with pytest.raises(type(error), match=str(error)), Ranks(1, 2)._in_touch():
            raise error
    with pytest.raises(UserError, match=r"rank 1 of 2 lost the others \(Connection closed\)"), Ranks(1, 2)._in_touch():
        raise RuntimeError("Connection closed")


@pytest.mark.parametrize(
    ("local", "visible", "index"), [("SLURM_LOCALID", 1, 0), ("SLURM_LOCALID", 4, 3), ("LOCAL_RANK", 1, 3)]
)
def test_a_task_that_srun_shows_one_gpu_alone_takes_that(monkeypatch, local, visible, index):
    monkeypatch.setattr("torch.cuda.device_count", lambda: visible)
    assert with_device(Ranks(3, 8, 3), {local: "3"}) == Ranks(3, 8, index)


def test_ranks_wait_for_as_long_as_the_first_one_asks_them_to(tmp_path):
    launch([PROGRAM, str(tmp_path), json.dumps({"waits": 3})], devices=2, nodes=1)
    assert [(tmp_path / f"{rank}of2.txt").read_bytes() for rank in range(2)] == [b"at last"] * 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Ranks()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Ranks(3, 8, 1)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0"}, Ranks(2, 4, 0)),
        ({"SLURM_PROCID": "0"}, Ranks()),
    ],
)
def test_ranks_that_somebody_else_started_are_recognised(environment, expected):
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert ranks_of_environment(environment | meeting) == expected


def test_a_rank_without_a_meeting_point_is_refused():
    with pytest.raises(UserError, match="RANK says that this is one of 8 ranks; expected MASTER_ADDR too"):
        ranks_of_environment({"RANK": "3", "WORLD_SIZE": "8"})


def test_a_rank_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="environment variable RANK is 'first'; expected a whole number >= 0"):
        ranks_of_environment({"RANK": "first", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "environment variable RANK is set and WORLD_SIZE is not; expected both, or neither"),
        ({"WORLD_SIZE": "2"}, "environment variable WORLD_SIZE is set and RANK is not; expected both, or neither"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "environment variable RANK is '2'; expected a whole number >= 0 and < 2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "environment variable RANK is '0'; expected a whole number >= 0 and < 0"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "http"},
            "environment variable MASTER_PORT is 'http'; expected a whole number >= 0 and < 65536",
        ),
    ],
)
def test_ranks_that_are_half_named_or_out_of_range_are_refused_and_do_not_train_alone(environment, message):
    with pytest.raises(UserError) as error:
        ranks_of_environment(environment)
    assert str(error.value) == message


def test_under_srun_a_world_size_that_a_script_exported_is_no_half_named_rank():
    environment = {"WORLD_SIZE": "2", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert ranks_of_environment(environment | meeting) == Ranks(1, 2, 0)


@pytest.mark.parametrize("node", ["first", "2"])
def test_a_machine_that_is_none_of_them_is_refused(monkeypatch, node):
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": node}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"NODE_RANK is '{node}'; expected a whole number >= 0 and < 2$"):
        launch(["program.py"], devices=1, nodes=2)


def test_several_machines_need_a_meeting_point(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"train.nodes is 2; expected .* MASTER_ADDR, MASTER_PORT, NODE_RANK"):
        launch(["program.py"], devices=1, nodes=2)


def test_ranks_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert [threads_per_rank(devices) for devices in (1, 2, 3, 16)] == [8, 4, 2, 1]


def test_a_rank_starts_no_ranks_of_its_own():
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert not is_launched({})
    assert is_launched({"RANK": "0", "WORLD_SIZE": "2"} | meeting)
    assert is_launched({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"} | meeting)
    assert is_launched({"TORCHELASTIC_RUN_ID": "train", "RANK": "0", "WORLD_SIZE": "1"})


@pytest.mark.parametrize("environment", [{"SLURM_PROCID": "0"}, {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}])
def test_the_shell_of_a_slurm_job_is_no_rank(environment):
    assert not is_launched(environment)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.mark.parametrize("dying", [0, 1])
def test_a_rank_that_nobody_watches_ends_with_a_line_when_its_peer_is_killed(tmp_path, dying):
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "SLURM_STEP_NUM_TASKS": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(tmp_path), json.dumps({"dies": [dying, 17]})],
            env={**os.environ, **meeting, "SLURM_PROCID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    _, errors = ranks[1 - dying].communicate(timeout=300)
    assert ranks[dying].wait(timeout=300) == -signal.SIGKILL
    assert ranks[1 - dying].returncode == 1
    assert errors.splitlines()[-1].startswith(f"error: train: rank {1 - dying} of 2 lost the others (")
    assert "Traceback" not in errors


def test_two_machines_meet_and_train_as_one(alone, tmp_path):
    """Each is a launcher of its own on this machine."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    code = "import sys; from pipeline.training.launch import launch; launch(sys.argv[1:], devices=1, nodes=2)"
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", code, PROGRAM, str(tmp_path), json.dumps({"params": {"epochs": 2}})],
            env={**os.environ, **meeting, "NODE_RANK": str(node)},
        )
        for node in range(2)
    ]
    assert [machine.wait(timeout=300) for machine in machines] == [0, 0]
    for rank in range(2):
        trained = load_file(tmp_path / f"{rank}of2.safetensors")
        torch.testing.assert_close(trained["weights"], alone["weights"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shares_cover_a_batch_once(world_size):
    shares = [Ranks(rank, world_size).share(100, 20) for rank in range(world_size)]
    assert torch.equal(torch.cat(shares), torch.arange(100, 120))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
