"""An ONNX file of ours, opened: on the device that was asked for, quietly, and never on another one in silence."""

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pipeline.errors import UserError, one_line
from pipeline.runtime.cuda import cuda_device_count
from pipeline.runtime.draws import whole_number
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.providers import PROVIDERS, providers
from pipeline.runtime.providers import Device as Device

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions


_MOST_THREADS = 1024  # each is made at once; a typing error of a million of them would take the machine down
_LONGEST_SPIN_US = 10**9  # 17 minutes: beyond it lies what onnxruntime cannot read


def open_session(
    model: Path | str | bytes,
    device: Device = "auto",
    threads: int | None = None,
    name: str | None = None,
    *,
    capture: bool = False,
    spin_us: int | None = None,
) -> "InferenceSession":
    """Open an exported file, or its bytes.

    Args:
        model: the path of an ONNX file, or the bytes of one.
        device: `auto` is CUDA where a CUDA device is, else the CPU; any other device is served or refused.
        threads: CPU threads for one call, 1 to 1,024; None lets onnxruntime take the machine's cores.
        name: what errors call the file; its path unless given.
        capture: record its runs as CUDA graphs: it is then for `CapturedGraph` alone.
        spin_us: how long a CPU thread waits awake for more work, 0 to 1e9 microseconds; None: as long as onnxruntime
            thinks right, which sits out the noise of a batch, computed by one thread.

    Raises:
        UserError: the file is missing, truncated or not one of ours; the device is unknown or cannot be
            served; threads or spin_us is no whole number in its range; or onnxruntime is not installed.
    """
    threads = None if threads is None else whole_number("threads", threads, 1, _MOST_THREADS)
    spin_us = None if spin_us is None else whole_number("spin_us", spin_us, 0, _LONGEST_SPIN_US)
    name = name or ("the given bytes" if isinstance(model, bytes) else str(model))
    served = _resolve(device)
    content = model if isinstance(model, bytes) else read_file(model)
    session = _load(content, providers(served, content, capture), _options(served, threads, spin_us), name)
    if PROVIDERS[served] not in session.get_providers():
        _report_unserved(device, served)
    read_metadata(session, name)
    return session


def read_metadata(session: "InferenceSession", name: str) -> Metadata:
    """What the opened file says of itself; errors call it `name`.

    Raises:
        UserError: the file carries no metadata of ours, or malformed ones.
    """
    return Metadata.from_strings(session.get_modelmeta().custom_metadata_map, name)


def read_file(path: Path | str) -> bytes:
    """The bytes of an ONNX file; none of ours has parts elsewhere.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected an export folder or one of its ONNX files") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected an ONNX file") from None


def served_device(session: "InferenceSession") -> str:
    """The device that an opened session computes on: cpu, cuda or tensorrt."""
    names = session.get_providers()
    return next(device for device in ("tensorrt", "cuda", "cpu") if PROVIDERS[device] in names)


def _resolve(device: str) -> str:
    """The device that is asked for: `auto` looks, the others are refused where they cannot be."""
    if device not in get_args(Device):
        raise UserError(f"device is {device!r}; expected one of {', '.join(get_args(Device))}")
    if device == "cpu":
        return device
    available = _onnxruntime().get_available_providers()
    if device == "auto":
        return "cuda" if cuda_device_count() and PROVIDERS["cuda"] in available else "cpu"
    if not cuda_device_count():
        raise UserError(f"device is {device!r}, but this machine offers no CUDA device; expected auto or cpu")
    if PROVIDERS[device] not in available:
        raise UserError(f"device is {device!r}, but this onnxruntime has no {PROVIDERS[device]}; {_INSTALL}")
    return device


def _load(content: bytes, served_by: list[Any], options: "SessionOptions", name: str) -> "InferenceSession":
    onnxruntime = _onnxruntime()
    if len(served_by) > 1:
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN in the nvidia-* wheels
    # onnxruntime's exceptions share no base class, but each is named after a status code.
    state = onnxruntime.capi.onnxruntime_pybind11_state
    failures: tuple[type[Exception], ...] = (state.Fail, state.InvalidArgument, state.InvalidGraph)
    failures += (state.InvalidProtobuf, state.NotImplemented, state.RuntimeException, state.EPFail)
    try:
        return onnxruntime.InferenceSession(content, sess_options=options, providers=served_by, enable_fallback=0)
    except failures as error:
        reason = one_line(error, 160)
        raise UserError(f"{name}: not a whole ONNX file that onnxruntime can open ({reason})") from None


def _options(served: str, threads: int | None, spin_us: int | None) -> "SessionOptions":
    options = _onnxruntime().SessionOptions()
    options.log_severity_level = 3  # errors alone
    if served == "cpu":
        options.enable_mem_pattern = False  # it lays memory out anew for each size of batch, and keeps all layouts
    if spin_us is not None:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin_us))
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _report_unserved(device: str, served: str) -> None:
    problem = f"{PROVIDERS[served]} could not be loaded by onnxruntime, which said why above"
    if device != "auto":
        raise UserError(f"device is {device!r}, but {problem}; expected its libraries to be installed, or device cpu")
    warnings.warn(f"a CUDA device is present, but {problem}; running on the CPU", RuntimeWarning, stacklevel=3)


_INSTALL = "install one with: pip install '.[runtime]' (with CUDA) or '.[runtime-cpu]'"


@functools.cache
def _onnxruntime() -> Any:
    """onnxruntime, imported at the first session: `vae --help` need not wait for it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"onnxruntime cannot be imported ({error}); {_INSTALL}") from None
    onnxruntime.disable_telemetry_events()
    return onnxruntime
