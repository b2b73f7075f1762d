import re
import subprocess
import sys

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.runtime import Sampler, open_session, session

NO_DEVICE = pytest.mark.skipif(session.cuda_device_count() > 0, reason="this machine has a CUDA device")


def test_a_path_and_its_bytes_open_alike(mlp):
    for model in (mlp.folder / "decoder.onnx", str(mlp.folder / "decoder.onnx"), mlp.files["decoder.onnx"]):
        assert [node.name for node in open_session(model, "cpu").get_inputs()] == ["z"]


@NO_DEVICE
def test_auto_serves_on_the_cpu_and_prints_nothing(mlp, capfd):
    assert open_session(mlp.folder / "decoder.onnx").get_providers() == ["CPUExecutionProvider"]
    assert capfd.readouterr() == ("", "")


@NO_DEVICE
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_not_there_is_refused_quietly(mlp, device, capfd):
    with pytest.raises(UserError, match=f"device is '{device}', but this machine offers no CUDA device"):
        open_session(mlp.folder / "decoder.onnx", device)
    assert capfd.readouterr() == ("", "")


def test_a_device_that_onnxruntime_cannot_load_is_refused_and_auto_says_so(mlp, monkeypatch):
    monkeypatch.setattr(session, "cuda_device_count", lambda: 1)
    # As when CUDA's libraries are missing.
    monkeypatch.setattr(session, "providers", lambda *_: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="device is 'cuda', but CUDAExecutionProvider could not be loaded"):
        open_session(mlp.folder / "decoder.onnx", "cuda")
    with pytest.warns(RuntimeWarning, match="a CUDA device is present, but .*; running on the CPU"):
        open_session(mlp.folder / "decoder.onnx", "auto")


@pytest.mark.gpu
@pytest.mark.skipif(session.cuda_device_count() == 0, reason="needs a CUDA device")
def test_auto_serves_on_cuda_where_a_device_is(mlp):
    assert "CUDAExecutionProvider" in open_session(mlp.folder / "decoder.onnx").get_providers()


def test_no_layout_of_memory_is_kept_for_each_size_of_batch(mlp):
    assert not open_session(mlp.folder / "sampler.onnx", "cpu").get_session_options().enable_mem_pattern


def test_an_unknown_device_is_refused(mlp):
    with pytest.raises(UserError, match="device is 'gpu'; expected one of auto, cpu, cuda, tensorrt"):
        open_session(mlp.folder / "decoder.onnx", "gpu")


@pytest.mark.parametrize("threads", [0, -1, 1.0, "2", True, 1025, 10**30])
def test_a_count_of_threads_that_is_none_is_refused(mlp, threads):
    for opened in (open_session, Sampler):
        with pytest.raises(
            UserError, match=re.escape(f"threads is {threads!r}; expected a whole number from 1 to 1024")
        ):
            opened(mlp.folder / "sampler.onnx", "cpu", threads=threads)


@pytest.mark.parametrize("spin_us", [-1, 0.5, "100", 10**9 + 1])
def test_a_wait_that_no_thread_can_have_is_refused(mlp, spin_us):
    expected = f"spin_us is {spin_us!r}; expected a whole number from 0 to 1000000000"
    with pytest.raises(UserError, match=re.escape(expected)):
        open_session(mlp.folder / "sampler.onnx", "cpu", spin_us=spin_us)


@pytest.mark.parametrize("threads", [1, np.int64(2)])
def test_one_thread_or_a_number_of_numpy_is_what_serves(mlp, threads):
    opened = open_session(mlp.folder / "sampler.onnx", "cpu", threads=threads)
    assert opened.get_session_options().intra_op_num_threads == threads


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(mlp, tmp_path, share):
    whole = mlp.files["sampler.onnx"]
    (tmp_path / "a.onnx").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a.onnx: ") as error:
        open_session(tmp_path / "a.onnx", "cpu")
    assert "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_a_text_are_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("not a graph")
    for path, message in {
        "none.onnx": "not found",
        ".": "cannot be read",
        "text.onnx": "not a whole ONNX file",
    }.items():
        with pytest.raises(UserError, match=message):
            open_session(tmp_path / path, "cpu")


def test_a_graph_that_is_not_ours_is_refused(mlp, tmp_path):
    import onnx

    model = onnx.load_from_string(mlp.files["decoder.onnx"])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(UserError, match=r"theirs.onnx: carries no vae-pipeline metadata"):
        open_session(tmp_path / "theirs.onnx", "cpu")


def test_a_missing_onnxruntime_is_answered_with_the_command_that_installs_it(mlp):
    code = f"""
import sys
sys.modules["onnxruntime"] = None
from pipeline.runtime import Sampler
try:
    Sampler({str(mlp.folder)!r}, "cpu")
except ValueError as error:
    print(error)
"""
    assert "pip install '.[runtime]'" in run(code)


def test_importing_the_runtime_loads_no_heavy_library():
    code = """
import sys
import pipeline.runtime, pipeline.cli
print([name for name in ("torch", "mlflow", "dvc", "onnx", "onnxruntime", "PIL") if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_drawing_images_loads_neither_torch_nor_mlflow(mlp):
    code = f"""
import sys
from pipeline.runtime import Sampler
Sampler({str(mlp.folder)!r}, "cpu").sample(2)
print([name for name in ("torch", "mlflow", "dvc", "onnx", "PIL") if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
