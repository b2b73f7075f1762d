"""Starts the ranks of a training that `train.devices` and `train.nodes` ask for, and watches over them."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipeline.errors import UserError, one_line
from pipeline.training.meeting import meet, no_meeting
from pipeline.training.ranks import port_of, ranks_of_environment, whole_number

# They tell of every signal, and of every rank that fails.
_TALKATIVE = ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api")

_SECONDS_TO_STOP = 120  # then a rank is killed; until then it may end a validation, and save
_SECONDS_TO_JOIN = 60  # for machines that have met: torch hears no signal meanwhile
_TOLD_TO_STOP = (-signal.SIGTERM, 128 + signal.SIGTERM)  # exit codes


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether torchrun, Kubernetes' training operator or srun has started this process as a rank.

    A Slurm job's own shell, or a single task of it, is no rank: from there the stage starts its ranks itself.
    """
    return "TORCHELASTIC_RUN_ID" in environment or ranks_of_environment(environment).world_size > 1


def launch(command: Sequence[str], devices: int, nodes: int) -> None:
    """Run `command` once for each device of this machine, as ranks that know one another; wait for all.

    A rank that dies ends the others; SIGINT and SIGTERM are passed on to all, and end this process when they have ended
    theirs. On several machines, each runs the same stage command.

    Args:
        command: arguments of the Python interpreter.
        devices: ranks on this machine.
        nodes: machines; above 1, MASTER_ADDR, MASTER_PORT and NODE_RANK say where they meet and which one this is.

    Raises:
        UserError: a rank failed, the machines do not find each other, or the environment does not say where they meet,
            or which one this is.
    """
    backend, endpoint, options = _meeting_point(nodes, os.environ)
    if nodes > 1:
        meet(endpoint, options["rank"], nodes)
    # Each rank would take every core for itself, and threads that wait for a core spin.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_per_rank(devices)))
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=devices,
        run_id="train",
        max_restarts=0,
        rdzv_backend=backend,
        rdzv_endpoint=endpoint,
        rdzv_configs=options,
        shutdown_timeout=_SECONDS_TO_STOP,
    )
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as stopped:  # it was passed on, and the ranks have ended: the first has said what it saved
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as error:
        rank, failure = first_to_fail(error.failures)
        raise UserError(f"train: rank {rank} ended with exit code {failure.exitcode}, and the others with it") from None
    except DistError as error:
        raise no_meeting(endpoint, one_line(error, 200)) from None
    finally:  # torch leaves its own behind
        for number, handler in handlers.items():
            signal.signal(number, handler)


def first_to_fail(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The rank that the others ended for: of those found in the same second one that was killed, if any was.

    A rank that lost another exits at once, and may be found at the same look as the one that was killed; those that the
    launcher then stops are failures to torch, too.
    """

    def order(item: tuple[int, ProcessFailure]) -> tuple[int, bool, bool, int]:
        rank, failure = item
        return failure.timestamp, failure.exitcode in _TOLD_TO_STOP, failure.exitcode >= 0, rank

    return min(failures.items(), key=order)


def threads_per_rank(devices: int) -> int:
    """The threads that torch would take in this process, shared out among so many ranks; at least one each."""
    return max(1, torch.get_num_threads() // devices)


def _meeting_point(nodes: int, environment: Mapping[str, str]) -> tuple[str, str, dict[str, Any]]:
    """torch's names of it: the kind of rendezvous, its address, and its options.

    Raises:
        UserError: a variable is missing or no number in range, or names a host that nobody knows.
    """
    if nodes == 1:
        return "c10d", "127.0.0.1:0", {}
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in environment]
    if missing:
        raise UserError(
            f"params.yaml: train.nodes is {nodes}; expected the environment of each to name {', '.join(missing)}"
        )
    host, port = environment["MASTER_ADDR"], port_of(environment)
    options = {"rank": whole_number(environment, "NODE_RANK", nodes), "timeout": _SECONDS_TO_JOIN}
    try:  # torch would look for it again and again
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"environment variable MASTER_ADDR is {host!r} ({one_line(error)}); expected a host that is known here"
        ) from None
    return "static", f"{host}:{port}", options
