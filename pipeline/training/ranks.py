"""The processes that train one model together: who they are, what each does of a batch, and how they add up."""

import dataclasses
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor, distributed

from pipeline.device import choose_device
from pipeline.errors import SharedError, UserError, one_line, run_stage

_TIMEOUT = timedelta(minutes=10)  # of one collective operation; a rank that is gone ends the others after that
_PORTS = 2**16
_NOTHING, _WAIT = -1, -2  # in the place of a number of bytes


@dataclass(frozen=True)
class Ranks:
    """This process among its peers; alone unless told otherwise."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Among those of its machine: the index of its device there."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files, logs and prints."""
        return self.rank == 0

    def share(self, start: int, count: int) -> Tensor:
        """This rank's part of the positions start..start+count-1, int64; parts differ in length by at most one."""
        first, stop = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return torch.arange(start + first, start + stop)

    def add_up(self, value: Tensor) -> Tensor:
        """The sum of every rank's `value`, in place."""
        if self.world_size > 1:
            with self._in_touch():
                distributed.all_reduce(value)
        return value

    def copy_from_first(self, value: Tensor) -> Tensor:
        """Rank 0's `value`, in place."""
        if self.world_size > 1:
            with self._in_touch():
                distributed.broadcast(value, src=0)
        return value

    def copy_bytes_from_first(self, content: bytes | None) -> bytes | None:
        """Rank 0's `content`, on every rank."""
        if self.world_size == 1:
            return content
        length = self.copy_from_first(torch.tensor(_NOTHING if content is None else len(content)))
        while length.item() == _WAIT:
            length = self.copy_from_first(torch.tensor(_WAIT))
        if length.item() == _NOTHING:
            return None
        buffer = torch.empty(int(length.item()), dtype=torch.uint8)
        if content is not None:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return self.copy_from_first(buffer).numpy().tobytes()

    def ask_to_wait(self) -> None:
        """From rank 0, as often as it likes while the others are in `copy_bytes_from_first`: theirs is to last on."""
        self.copy_from_first(torch.tensor(_WAIT))

    def expect_alike(self, name: str) -> None:
        """Hold that every rank is about to train what the first one does, which `name` stands for.

        Raises:
            SharedError: some are not, whose weights and gradients would be of another training.
        """
        first = self.copy_bytes_from_first(name.encode() if self.is_first else None)
        differ = torch.zeros(self.world_size)
        differ[self.rank] = first != name.encode()
        if others := self.add_up(differ).nonzero().flatten().tolist():
            raise SharedError(
                f"train: of {self.world_size} ranks, {', '.join(map(str, others))} would train with other params, "
                "data, code, torch or precision than rank 0; expected the same on every machine"
            )

    def leave_last(self, code: int) -> NoReturn:
        """Exit after rank 0 has: a launcher ends the others when the first has failed, whatever they are about."""
        with suppress(UserError):  # of having lost it
            self.copy_from_first(torch.zeros(()))
        sys.exit(code)

    def part(self) -> None:
        """Have done with the others, after the last word to them: NCCL's end waits until every rank is there."""
        if self.world_size > 1:
            distributed.destroy_process_group()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on some rank."""
        return bool(self.add_up(torch.tensor(float(flag))).item()) if self.world_size > 1 else flag

    @contextmanager
    def _in_touch(self) -> Iterator[None]:
        """Where a peer has died, gloo raises a bare RuntimeError, at once or after _TIMEOUT."""
        try:
            yield
        except (torch.OutOfMemoryError, torch.AcceleratorError):  # of this rank's own device
            raise
        except RuntimeError as error:
            reason = one_line(error, 200)
            raise UserError(
                f"train: rank {self.rank} of {self.world_size} lost the others ({reason}); expected all to run to the "
                "end: the first to fail says why, and the same command goes on from the last state"
            ) from None


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Join the ranks that torchrun, Slurm or Kubernetes started; without such, this process is alone.

    A rank that an exception leaves with has said so, as `run_stage` does, and its process has ended: it waits for
    no other, which may be waiting for it.

    Args:
        device: `train.device` of params.yaml.

    Raises:
        UserError: the environment names a rank but lacks a part of what it takes to find the others, they do not come,
            or one of them is lost on the way.
    """
    found = ranks_of_environment(os.environ)
    if found.world_size == 1:
        yield found
        return
    found = with_device(found, os.environ)
    on_gpu = choose_device(device, found.local_rank).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(found.local_rank)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    with found._in_touch():
        distributed.init_process_group(backend, rank=found.rank, world_size=found.world_size, timeout=_TIMEOUT)
    try:
        yield found
    except BaseException as error:
        _end(error)
    if distributed.is_initialized():
        found.part()


def with_device(ranks: Ranks, environment: Mapping[str, str]) -> Ranks:
    """These ranks with the index of their device as this process sees it: srun may show a task its own one alone."""
    sees_its_own = "LOCAL_RANK" not in environment and torch.cuda.device_count() == 1
    return dataclasses.replace(ranks, local_rank=0) if sees_its_own else ranks


def _end(error: BaseException) -> NoReturn:
    """Show an error as the stage does and end at once: in NCCL, leaving and aborting are collective operations too."""
    code = 1
    try:
        run_stage(partial(_raise, error))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # no user's: those who write the code want to see where
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _raise(error: BaseException) -> NoReturn:
    raise error


def ranks_of_environment(environment: Mapping[str, str]) -> Ranks:
    """Read the variables of torchrun and of Kubernetes' training operator (RANK, WORLD_SIZE) or of Slurm's srun.

    Raises:
        UserError: one of them is not a whole number, out of range or alone, or nothing says where rank 0 listens.
    """
    for rank, world_size, local_rank in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if rank in environment and world_size in environment:
            count = whole_number(environment, world_size)
            ranks = Ranks(whole_number(environment, rank, count), count, whole_number(environment, local_rank))
            for name in ("MASTER_ADDR", "MASTER_PORT"):
                if ranks.world_size > 1 and name not in environment:
                    raise UserError(f"{rank} says that this is one of {ranks.world_size} ranks; expected {name} too")
            if ranks.world_size > 1:
                port_of(environment)
            return ranks
    for given, lacking in (("RANK", "WORLD_SIZE"), ("WORLD_SIZE", "RANK")):
        if given in environment:  # every such process would train alone, beside the others
            raise UserError(f"environment variable {given} is set and {lacking} is not; expected both, or neither")
    return Ranks()


def port_of(environment: Mapping[str, str]) -> int:
    """MASTER_PORT, at which the ranks meet.

    Raises:
        UserError: it is no port's number, or 0, which stands for any.
    """
    port = whole_number(environment, "MASTER_PORT", _PORTS)
    if port == 0:
        raise UserError("environment variable MASTER_PORT is '0'; expected one port's number, the same for all")
    return port


def whole_number(environment: Mapping[str, str], name: str, below: int | None = None) -> int:
    """An environment variable's value; 0 where it is not set.

    Raises:
        UserError: it is not a whole number, or not `below` that.
    """
    value = environment.get(name, "0")
    if not value.isdecimal() or (below is not None and int(value) >= below):
        limit = "" if below is None else f" and < {below}"
        raise UserError(f"environment variable {name} is {value!r}; expected a whole number >= 0{limit}")
    return int(value)
