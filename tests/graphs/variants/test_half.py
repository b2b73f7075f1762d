import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.graphs.variants.layers import PARAMETERS
from pipeline.runtime.draws import rows
from pipeline.runtime.session import open_session


@pytest.fixture(params=["mlp", "conv"])
def pair(request, trained, conv, fp16, fp16_conv):
    """The files in float32 and in fp16."""
    return (trained.files, fp16) if request.param == "mlp" else (conv.files, fp16_conv)


def test_images_are_those_of_float32_to_one_grey_level_and_z_to_the_bit(pair):
    (plain, z), (half, same_z) = (
        open_session(files["sampler.onnx"], "cpu").run(["images", "z"], rows(300, 5, 0, 1.0)) for files in pair
    )
    np.testing.assert_array_equal(same_z, z)
    assert np.abs(plain.astype(int) - half).max() <= 1


def test_all_weights_are_half_precision_and_what_comes_behind_the_parameters_is_not(pair):
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(pair[1]["decoder.onnx"]), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith(("weight", "bias"))]
    assert weights
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    assert types[PARAMETERS] == TensorProto.FLOAT
    assert types[f"fp16/{PARAMETERS}"] == TensorProto.FLOAT16


def test_inputs_and_outputs_are_those_of_float32(pair):
    plain, half = (open_session(files["decoder.onnx"], "cpu") for files in pair)
    for side in ("get_inputs", "get_outputs"):
        assert [(v.name, v.type, v.shape) for v in getattr(plain, side)()] == [
            (v.name, v.type, v.shape) for v in getattr(half, side)()
        ]


def bytes_of_weights(content):
    weights = onnx.load_from_string(content).graph.initializer
    return sum(
        onnx.numpy_helper.to_array(tensor).nbytes for tensor in weights if tensor.name.endswith(("weight", "bias"))
    )


def test_the_weights_take_half_the_bytes(pair):
    plain, half = (files["decoder.onnx"] for files in pair)
    assert 2 * bytes_of_weights(half) == bytes_of_weights(plain)


def test_a_file_that_is_nearly_all_weights_is_about_half_as_large(trained, fp16):
    assert len(fp16["decoder.onnx"]) < 0.55 * len(trained.files["decoder.onnx"])
