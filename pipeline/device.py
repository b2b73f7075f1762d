"""Which device computes."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from pipeline.errors import UserError, one_line


def choose_device(name: str, index: int = 0) -> torch.device:
    """`auto` is CUDA where there is a device, else the CPU; of several devices, that with this index.

    Raises:
        UserError: `cuda` was asked for and there is no such device, or fewer than there are processes for them.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: train.device is 'cuda' but no CUDA device is available; expected auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device(name)
    if index >= (found := torch.cuda.device_count()):
        raise UserError(f"params.yaml: train.devices asks for more than this machine has; expected at most {found}")
    # TF32 would round what is multiplied to 10 bits: what is measured is to be what a CPU measures.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(name, index)


_NO_MEMORY = "can't allocate memory"  # torch's words for it on a CPU, where it has no error of its own


@contextmanager
def memory_bounded_by(param: str) -> Iterator[None]:
    """Where the memory of a GPU or of the processor comes to its end, name the param that asks for less of it.

    Raises:
        UserError: that is so.
    """
    try:
        yield
    except RuntimeError as error:
        text = one_line(error)
        if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in text:
            raise
        said = text[max(text.find(_NO_MEMORY), 0) :].partition(". ")[0]
        raise UserError(f"params.yaml: the device's memory is too small ({said}); expected a smaller {param}") from None


def describe_device(device: torch.device) -> str:
    """For a person to read: a GPU's name, or the processor's and how many threads torch takes of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    with suppress(OSError):  # Linux alone has the file, and platform knows no more than the architecture there
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
