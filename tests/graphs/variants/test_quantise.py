import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.graphs.variants.layers import PARAMETERS, expose
from pipeline.graphs.variants.quantise import Scale, quantised_layers
from pipeline.runtime.draws import rows
from pipeline.runtime.session import open_session


@pytest.fixture(params=["mlp", "conv"])
def pair(request, trained, conv, int8, int8_conv):
    """The files in float32 and in int8."""
    return (trained.files, int8) if request.param == "mlp" else (conv.files, int8_conv)


def draw(content, given):
    return open_session(content, "cpu").run(["images", "z"], given)


def operators(content):
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


def test_images_are_those_of_float32_to_a_few_grey_levels_and_z_to_the_bit(pair):
    (plain, z), (small, same_z) = (draw(files["sampler.onnx"], rows(300, 5, 0, 1.0)) for files in pair)
    np.testing.assert_array_equal(same_z, z)
    difference = np.abs(plain.astype(int) - small)
    assert 0 < np.quantile(difference, 0.999) < 20
    assert difference.mean() < 2


def test_rows_stand_alone(pair):
    sampler = pair[1]["sampler.onnx"]
    together, _ = draw(sampler, rows(40, 3, 0, 1.0))
    alone = np.concatenate([draw(sampler, rows(1, 3, index, 1.0))[0] for index in range(40)])
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_a_row_far_out_leaves_the_others_as_they_are(pair):
    """Fails where a range is that of the batch: the wild row would coarsen all steps."""
    sampler = pair[1]["sampler.onnx"]
    given = rows(40, 3, 0, 1.0)
    calm, _ = draw(sampler, given)
    wild, _ = draw(sampler, given | {"temperature": np.where(np.arange(40) == 7, 500, 1).astype(np.float32)})
    others = np.arange(40) != 7
    assert np.abs(calm[others].astype(int) - wild[others]).max() <= 1
    assert np.abs(calm[7].astype(int) - wild[7]).max() > 1


def test_the_operators_are_onnx_own_and_the_first_layer_stays_float32(int8, int8_conv):
    dense, convolutional = operators(int8["decoder.onnx"]), operators(int8_conv["decoder.onnx"])
    assert (dense.count("Gemm"), dense.count("MatMulInteger")) == (1, 1)
    # The conv decoder has two stages and an output, behind the dense layer that z enters.
    assert (convolutional.count("Gemm"), convolutional.count("QLinearConv"), convolutional.count("Conv")) == (1, 2, 1)
    for files in (int8, int8_conv):
        for content in files.values():
            opsets = onnx.load_from_string(content).opset_import
            assert [(opset.domain, opset.version) for opset in opsets] == [("", 18)]


def test_no_two_products_overflow_16_bits(int8, int8_conv):
    """A processor without VNNI adds two of them in 16 bits, and cuts the sum off: images would depend on it."""
    for files in (int8, int8_conv):
        graph = onnx.load_from_string(files["decoder.onnx"]).graph
        weights = [numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("/weight")]
        assert weights
        for weight in weights:
            assert weight.dtype == np.int8
            assert np.abs(weight.astype(int)).max() == 64
    assert 2 * 255 * 64 < 2**15


def test_the_file_is_smaller(trained, int8):
    assert len(int8["decoder.onnx"]) < len(trained.files["decoder.onnx"])


def test_a_scale_holds_its_range_and_zero_exactly():
    for low, high in ((-0.3, 4.0), (1.0, 2.0), (-2.0, -1.0), (0.0, 0.0)):
        scale = Scale.of(low, high)
        stored = np.clip(np.rint(np.array([low, 0.0, high]) / scale.step) + scale.zero, 0, 255)
        back = (stored - scale.zero) * scale.step
        assert back[1] == 0
        np.testing.assert_allclose(back, [low, 0.0, high], atol=float(scale.step))


def test_a_linear_decoder_has_nothing_to_quantise(trained):
    model = onnx.load_from_string(trained.files["decoder.onnx"])
    for node in [node for node in model.graph.node if node.op_type == "Gemm"][1:]:
        model.graph.node.remove(node)
    assert quantised_layers(model.graph) == []


def test_the_parameters_of_the_likelihood_can_be_read_from_every_decoder(trained, int8):
    z = np.random.default_rng(0).standard_normal((6, 8), np.float32)
    for files in (trained.files, int8):
        decoder = expose(onnx.load_from_string(files["decoder.onnx"]), [PARAMETERS])
        x, logits = open_session(decoder, "cpu").run(["x", PARAMETERS], {"z": z})
        assert logits.shape == (6, 1, 8, 8)
        np.testing.assert_allclose(x, 1 / (1 + np.exp(-logits)), atol=1e-6)
