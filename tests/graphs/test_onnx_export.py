import getpass
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from pipeline.graphs.build import build_files
from pipeline.graphs.onnx_export import check_batch_is_dynamic, finish, to_onnx
from pipeline.runtime import open_session
from pipeline.runtime.describe import describe


def test_names_types_and_shapes_are_those_of_the_contract(exported):
    latent_dim, (c, h, w) = exported.metadata.latent_dim, exported.metadata.image_shape
    z, images = ("z", "float32", ["n", latent_dim]), ("images", "uint8", ["n", h, w, c])
    rows = [("seed", "int64", ["n"]), ("index", "int64", ["n"]), ("temperature", "float32", ["n"])]
    posterior = [(name, "float32", ["n", latent_dim]) for name in ("mu", "logvar")]
    assert interface(exported.files["decoder.onnx"]) == ([z], [("x", "float32", ["n", c, h, w])])
    assert interface(exported.files["encoder.onnx"]) == ([images], posterior)
    assert interface(exported.files["sampler.onnx"]) == (rows, [images, z])
    scores = [("score", "float32", ["n"]), ("error", "float32", ["n", h, w])]
    assert interface(exported.files["scorer.onnx"]) == ([images], scores)


def interface(content):
    sides = describe(open_session(content, "cpu"))
    return tuple([tuple(tensor.values()) for tensor in sides[side]] for side in ("inputs", "outputs"))


def test_every_file_passes_the_full_checker_and_names_its_origin(exported):
    for name, content in exported.files.items():
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model, full_check=True)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        own = {"latent_kl"} | ({"score_samples", "score_quantiles"} if name == "scorer.onnx" else set())
        assert own <= properties.keys()
        assert {key: value for key, value in properties.items() if key not in own} == {
            "format": "vae-pipeline/1",
            "graph": name.removesuffix(".onnx"),
            "latent_dim": "3",
            "image_shape": json.dumps(list(exported.metadata.image_shape)),
            "likelihood": exported.metadata.likelihood,
            "prior": "standard",
            "objective": "elbo",
            "data_sha256": "da7a" * 16,
            "params_hash": "9a3a" * 16,
            "git_revision": "0fb6cfb",
            "mlflow_run": "8f14e45f",
        }


def test_opset_and_ir_version_are_those_of_the_oldest_runtime(exported):
    for content in exported.files.values():
        model = onnx.load_from_string(content)
        assert model.ir_version == 10
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


def test_no_file_keeps_data_elsewhere(exported):
    for content in exported.files.values():
        graph = onnx.load_from_string(content).graph
        assert all(tensor.data_location == TensorProto.DEFAULT for tensor in graph.initializer)


def test_no_file_tells_of_the_machine_that_built_it(exported):
    places = [str(Path.cwd()), str(Path.home()) + "/", "site-packages", ".py", getpass.getuser() + "@"]
    for content in exported.files.values():
        assert not [place for place in places if place.encode() in content]
        assert not re.search(rb"stack_trace|torch\.onnx", content)


def test_the_same_model_gives_the_same_bytes(mlp):
    validation = np.random.default_rng(1).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    assert build_files(mlp.vae, mlp.metadata, 4, validation) == mlp.files


def test_a_row_does_not_depend_on_its_neighbours(exported):
    z = np.random.default_rng(0).standard_normal((9, exported.metadata.latent_dim), np.float32)
    run = open_session(exported.files["decoder.onnx"], "cpu").run
    together = run(["x"], {"z": z})[0]
    alone = np.concatenate([run(["x"], {"z": row[None]})[0] for row in z])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_exporting_prints_nothing(capfd):
    to_onnx(nn.Linear(3, 2).eval(), [torch.zeros(2, 3)], ["z"], ["x"])
    assert capfd.readouterr() == ("", "")


def test_a_single_example_row_is_refused():
    with pytest.raises(ValueError, match="fewer than two rows"):
        to_onnx(nn.Linear(3, 2).eval(), [torch.zeros(1, 3)], ["z"], ["x"])


def test_a_graph_with_a_fixed_batch_is_refused():
    with pytest.raises(ValueError, match=r"x of the exported graph has shape \[2, 3\]; expected a dynamic batch"):
        check_batch_is_dynamic(identity(input_batch="n", output_batch=2))


def test_a_broken_graph_is_not_finished(mlp):
    model = identity("n", "n")
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(onnx.checker.ValidationError):
        finish(model, mlp.metadata)


def identity(input_batch, output_batch):
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [input_batch, 3])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [output_batch, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["z"], ["x"])], "identity", [z], [x])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
