"""What the CUDA driver says of its devices, asked by ctypes: no CUDA library need be installed."""

import ctypes
import functools
import sys
from dataclasses import dataclass
from typing import Any

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class CudaDevice:
    """Device 0 of this process: an engine that TensorRT built for one is of no use to another."""

    name: str
    capability: str
    """Compute capability, such as 9.0."""
    driver: int
    """The newest version of CUDA that the driver serves, such as 13000 for 13.0."""


@functools.cache
def cuda_device_count() -> int:
    """How many CUDA devices the driver offers to this process; 0 where there is no driver."""
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


@functools.cache
def cuda_device() -> CudaDevice | None:
    """Device 0, or None where there is no device or the driver does not answer."""
    driver = _driver()
    device, major, minor, version = (ctypes.c_int(0) for _ in range(4))
    name = ctypes.create_string_buffer(256)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    refused = (
        driver.cuDeviceGetName(name, len(name), device),
        driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
        driver.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(refused):
        return None
    return CudaDevice(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", version.value)


@functools.cache
def _driver() -> Any:
    """The driver's library, ready to be asked; None where there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None
