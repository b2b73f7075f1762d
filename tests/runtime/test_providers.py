import re
import stat

import onnxruntime
import pytest

from pipeline.errors import UserError
from pipeline.runtime import cuda
from pipeline.runtime import providers as module
from pipeline.runtime.cuda import CudaDevice, cuda_device, cuda_device_count
from pipeline.runtime.providers import engine_key, providers

DEVICE = CudaDevice("NVIDIA H100 80GB HBM3", "9.0", 13000)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # so that it is restored


def test_the_cpu_needs_no_options():
    assert providers("cpu", b"file") == ["CPUExecutionProvider"]


def test_cuda_keeps_to_float32_and_captures_only_what_is_asked_for():
    for capture in (False, True):
        (name, options), last = providers("cuda", b"file", capture)
        assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
        assert options["use_tf32"] == "0"
        assert options["enable_cuda_graph"] == str(int(capture))


def test_tensorrt_keeps_engines_and_leaves_the_rest_to_cuda(tmp_path, monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    (name, options), (second, _), last = providers("tensorrt", b"file")
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert [name, second, last] == names
    folder = tmp_path / "cache" / "vae-pipeline" / "tensorrt"
    [engines] = folder.iterdir()
    assert options["trt_engine_cache_enable"] == "1"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(engines)
    assert stat.S_IMODE(engines.stat().st_mode) == 0o700
    assert module.os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert providers("tensorrt", b"file")[0][1] == options  # found again


def test_a_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cache/vae-pipeline/tensorrt/.*: cannot be made \(Not a directory\)"):
        providers("tensorrt", b"file")


def test_engines_are_kept_by_file_device_and_versions():
    usual = (b"file", DEVICE, "101300", "1.31.1")
    others = [
        (b"other", *usual[1:]),
        (b"file", CudaDevice("NVIDIA A100", "9.0", 13000), *usual[2:]),
        (b"file", CudaDevice(DEVICE.name, "9.1", 13000), *usual[2:]),
        (b"file", CudaDevice(DEVICE.name, "9.0", 12080), *usual[2:]),
        (b"file", None, *usual[2:]),
        (b"file", DEVICE, "100900", "1.31.1"),
        (b"file", DEVICE, "101300", "1.30.0"),
    ]
    keys = [engine_key(*known) for known in (usual, *others)]
    assert len(set(keys)) == len(keys)
    assert engine_key(*usual) == keys[0]
    assert keys[0].endswith("-NVIDIA-H100-80GB-HBM3-sm9.0-cuda13000-trt101300-ort1.31.1")


@pytest.mark.parametrize("name", ["../../etc", "a/b", "c\\d", "NVIDIA  \x00", "GeForce RTX™"])
def test_a_key_is_a_plain_name(name):
    assert re.fullmatch(r"[A-Za-z0-9.-]+", engine_key(b"", CudaDevice(name, "9.0", 13000), "1", "2"))
    assert "/" not in engine_key(b"", CudaDevice(name, "9.0", 13000), "1", "2")


class Driver:
    """libcuda, as far as it is asked."""

    def __init__(self, found):
        self.found = found

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self.found
        return 0

    def cuDeviceGet(self, device, number):  # noqa: N802
        return 0 if self.found else 100

    def cuDeviceGetName(self, name, length, device):  # noqa: N802
        name.value = DEVICE.name.encode()
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 13000
        return 0


@pytest.mark.parametrize(("driver", "count", "device"), [(None, 0, None), (Driver(0), 0, None), (Driver(2), 2, DEVICE)])
def test_the_driver_says_which_device_there_is(monkeypatch, driver, count, device):
    monkeypatch.setattr(cuda, "_driver", lambda: driver)
    assert (cuda_device_count.__wrapped__(), cuda_device.__wrapped__()) == (count, device)


def test_the_options_are_known_to_onnxruntime():
    """Names are checked when a provider is made, which needs a device; the library holds them as text."""
    library = module.Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    if not library.is_file():
        pytest.skip("this onnxruntime has no TensorRT provider")
    content, options = library.read_bytes(), providers("tensorrt", b"file")[0][1]
    assert [option for option in options if option.encode() not in content] == []
