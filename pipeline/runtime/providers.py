"""Which of onnxruntime's execution providers serves a device, with which options; and where TensorRT keeps its engines.

TF32 is off everywhere: it would round products to 10 bits, which shows in the pixels, and an image is to be the same on
every device.
"""

import ctypes
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.runtime.cuda import CudaDevice, cuda_device

Device = Literal["auto", "cpu", "cuda", "tensorrt"]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
    "use_tf32": "0",
}
# TensorRT has no option of onnxruntime's for TF32, only this variable, read when its libraries are loaded.
_NO_TF32 = ("NVIDIA_TF32_OVERRIDE", "0")
_LIBRARIES = ("nvinfer_10.dll",) if sys.platform == "win32" else ("libnvinfer.so.10", "libnvinfer.so")


def providers(device: str, content: bytes, capture: bool = False) -> list[Any]:
    """What `InferenceSession` takes as its providers.

    Args:
        device: cpu, cuda or tensorrt.
        content: the ONNX file; TensorRT's engines are kept by its hash.
        capture: record runs as CUDA graphs, for `CapturedGraph`; on cuda alone.

    Raises:
        UserError: the folder for TensorRT's engines cannot be made.
    """
    if device == "cpu":
        return [PROVIDERS["cpu"]]
    cuda = (PROVIDERS["cuda"], {**_CUDA_OPTIONS, "enable_cuda_graph": "1" if capture else "0"})
    if device == "cuda":
        return [cuda, PROVIDERS["cpu"]]
    os.environ.setdefault(*_NO_TF32)
    return [(PROVIDERS["tensorrt"], tensorrt_options(_engines(content))), cuda, PROVIDERS["cpu"]]


def tensorrt_options(engines: Path) -> dict[str, str]:
    """Keep engines, and the timings of kernels that they were chosen by, in a folder."""
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
    }


def engine_key(content: bytes, device: CudaDevice | None, tensorrt: str, onnxruntime: str) -> str:
    """The name of the folder of engines: they serve one file, one kind of device and one version of each library."""
    where = f"{device.name}-sm{device.capability}-cuda{device.driver}" if device else "unknown"
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", where)
    return f"{hashlib.sha256(content).hexdigest()[:16]}-{plain}-trt{tensorrt}-ort{onnxruntime}"


def cache_folder() -> Path:
    """Where this user's caches lie: XDG_CACHE_HOME or ~/.cache, and in it a folder of ours."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae-pipeline"


def tensorrt_version() -> str:
    """TensorRT's version as its library says it, such as 101300; `unknown` where it is not found by name."""
    for name in _LIBRARIES:
        try:
            return str(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return "unknown"


def _engines(content: bytes) -> Path:
    import onnxruntime

    key = engine_key(content, cuda_device(), tensorrt_version(), onnxruntime.__version__)
    folder = cache_folder() / "tensorrt" / key
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # engines are code: nobody else may put one there
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); expected a place for TensorRT's engines"
        ) from None
    return folder
