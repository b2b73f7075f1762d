import json
from pathlib import Path
from urllib.parse import urlsplit

import onnx
from ruamel.yaml import YAML

from pipeline.tracking.models import log_onnx_model


def test_the_onnx_model_carries_the_signature_of_its_graph(store, trained, tmp_path):
    log_onnx_model(trained.run_id, identity_model(tmp_path / "decoder.onnx"))
    [logged] = store.search_logged_models([store.get_run(trained.run_id).info.experiment_id])
    assert (logged.name, logged.source_run_id) == ("decoder", trained.run_id)
    folder = Path(urlsplit(logged.artifact_location).path)
    inputs = json.loads(YAML(typ="safe").load((folder / "MLmodel").read_text())["signature"]["inputs"])
    assert inputs == [{"name": "z", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
    requirements = (folder / "requirements.txt").read_text().split()
    assert "onnxruntime" not in requirements
    assert store.get_run(trained.run_id).info.status == "FINISHED"


def identity_model(path):
    z = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 2])
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["z"], ["x"])], "g", [z], [x])
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
    return path
