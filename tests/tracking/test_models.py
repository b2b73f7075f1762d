import json
from pathlib import Path
from urllib.parse import urlsplit

import onnx
import pytest
from onnx import TensorProto
from ruamel.yaml import YAML

from pipeline.errors import UserError
from pipeline.tracking.models import log_sampler


@pytest.fixture
def logged(store, trained, mlp):
    """The folder of the model that the run of a training has after its sampler was logged."""
    model_id = log_sampler(trained.run_id, mlp.folder / "sampler.onnx")
    [model] = store.search_logged_models([store.get_run(trained.run_id).info.experiment_id])
    assert (model.model_id, model.name, model.source_run_id) == (model_id, "sampler", trained.run_id)
    return Path(urlsplit(model.artifact_location).path)


def test_the_model_carries_the_signature_of_its_graph(logged):
    signature = YAML(typ="safe").load((logged / "MLmodel").read_text())["signature"]
    assert specs(signature["inputs"]) == {
        "seed": ("int64", [-1]),
        "index": ("int64", [-1]),
        "temperature": ("float32", [-1]),
    }
    assert specs(signature["outputs"]) == {"images": ("uint8", [-1, 8, 8, 1]), "z": ("float32", [-1, 3])}


def specs(columns):
    tensors = {column["name"]: column["tensor-spec"] for column in json.loads(columns)}
    return {name: (spec["dtype"], spec["shape"]) for name, spec in tensors.items()}


def test_the_whole_export_goes_along(logged, mlp):
    assert "triton/decoder/config.pbtxt" in files(mlp.folder)
    assert files(logged / "extra_files") == files(mlp.folder)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_model_asks_for_no_cuda_and_for_one_onnxruntime(logged):
    assert YAML(typ="safe").load((logged / "MLmodel").read_text())["flavors"]["onnx"]["providers"] == [
        "CPUExecutionProvider"
    ]
    names = [line.split("==")[0] for line in (logged / "requirements.txt").read_text().split()]
    assert sorted(names) == ["mlflow", "numpy", "onnx", "onnxruntime-gpu"]


def test_the_example_is_a_request_that_can_be_posted(logged):
    example = json.loads((logged / "serving_input_example.json").read_text())
    assert example == {"inputs": {"seed": [0, 0], "index": [0, 1], "temperature": [1.0, 1.0]}}


def test_the_run_counts_as_finished(store, trained, logged):
    assert store.get_run(trained.run_id).info.status == "FINISHED"


def test_a_run_that_is_gone_is_told_in_one_line(store, mlp):
    with pytest.raises(UserError, match="^MLflow store sqlite:.*'?0000"):
        log_sampler("0" * 32, mlp.folder / "sampler.onnx")


def test_the_example_of_a_conditional_sampler_has_labels(store, trained, tmp_path):
    types = {"seed": TensorProto.INT64, "temperature": TensorProto.FLOAT, "label": TensorProto.INT64}
    inputs = [onnx.helper.make_tensor_value_info(name, dtype, ["n"]) for name, dtype in types.items()]
    output = onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["temperature"], ["z"])], "g", inputs, [output])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    (tmp_path / "export").mkdir()
    onnx.save(model, tmp_path / "export" / "sampler.onnx")
    logged = store.get_logged_model(log_sampler(trained.run_id, tmp_path / "export" / "sampler.onnx"))
    folder = Path(urlsplit(logged.artifact_location).path)
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert example == {"inputs": {"seed": [0, 0], "temperature": [1.0, 1.0], "label": [0, 0]}}
