"""The precision in which the networks run."""

from contextlib import AbstractContextManager, nullcontext

import torch

_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def choose_precision(precision: str, device: torch.device) -> str:
    """fp32 or bf16; `auto` is bf16 where the processor multiplies it in hardware."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if any(capabilities.get(name) for name in _BF16_INSTRUCTIONS) else "fp32"


def dtype_of(precision: str) -> torch.dtype:
    """Of the weights that the networks multiply with."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def precision_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the networks run; weights, densities and bounds stay in fp32 in either."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
