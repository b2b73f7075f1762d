import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from pipeline.graphs.sampler import sampler_model
from pipeline.runtime.noise import standard_normal
from pipeline.runtime.pixels import to_pixels

LATENT_DIM, CHANNELS, HEIGHT, WIDTH, CLASSES = 3, 3, 4, 5, 10
TOLERANCE = 3e-6


def decoder(conditional=False, sharpness=1.0, channels=CHANNELS):
    """A linear decoder with a sigmoid; a label shifts all pixels."""
    rng = np.random.default_rng(0)
    pixels = channels * HEIGHT * WIDTH
    constants = {
        "weight": (sharpness * rng.standard_normal((LATENT_DIM, pixels))).astype(np.float32),
        "bias": rng.standard_normal(pixels).astype(np.float32),
        "shape": np.array([-1, channels, HEIGHT, WIDTH]),
        "shift": rng.standard_normal((CLASSES, pixels)).astype(np.float32),
    }
    nodes = [helper.make_node("MatMul", ["z", "weight"], ["product"])]
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", LATENT_DIM])]
    logits = "product"
    if conditional:
        nodes += [
            helper.make_node("Gather", ["shift", "label"], ["shifted"]),
            helper.make_node("Add", ["product", "shifted"], ["with_label"]),
        ]
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))
        logits = "with_label"
    nodes += [
        helper.make_node("Add", [logits, "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["means"]),
        helper.make_node("Reshape", ["means", "shape"], ["x"]),
    ]
    outputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, HEIGHT, WIDTH])]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def open_model(model):
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def sample(sampler, seed, index, temperature, **more):
    rows = {"seed": np.array(seed), "index": np.array(index), "temperature": np.array(temperature, np.float32), **more}
    return sampler.run(["images", "z"], rows)


def expected_pixels(decoder_model, z, **more):
    (x,) = open_model(decoder_model).run(["x"], {"z": z, **more})
    return to_pixels(x)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_the_decoder_at_the_z_that_is_given_out(channels):
    model = decoder(channels=channels)
    images, z = sample(open_model(sampler_model(model, LATENT_DIM)), [4] * 50, range(50), [1] * 50)
    assert images.dtype == np.uint8
    assert images.shape == (50, HEIGHT, WIDTH, channels)
    np.testing.assert_array_equal(images, expected_pixels(model, z))


def test_z_is_temperature_times_the_seeded_noise():
    seed, index, temperature = np.array([0, 1, 2**63 - 1, 1]), np.array([0, 5, 9, 5]), np.array([0.5, 1, 2, 0.25])
    _, z = sample(open_model(sampler_model(decoder(), LATENT_DIM)), seed, index, temperature)
    eps = standard_normal(seed, index, LATENT_DIM)
    np.testing.assert_allclose(z, temperature[:, None] * eps, rtol=0, atol=2 * TOLERANCE)


def test_temperature_zero_gives_the_image_at_the_centre_of_the_prior():
    model = decoder()
    images, z = sample(open_model(sampler_model(model, LATENT_DIM)), range(9), range(9), [0] * 9)
    np.testing.assert_array_equal(z, 0)
    np.testing.assert_array_equal(images, expected_pixels(model, np.zeros((9, LATENT_DIM), np.float32)))


def test_rows_of_different_callers_share_a_batch():
    sampler = open_model(sampler_model(decoder(), LATENT_DIM))
    rows = list(zip([3, 3, 8, 0], [0, 1, 0, 2**40], [1.0, 0.3, 0.0, 2.0], strict=True))
    together, _ = sample(sampler, *zip(*rows, strict=True))
    alone = np.concatenate([sample(sampler, *([value] for value in row))[0] for row in rows])
    difference = together.astype(int) - alone
    assert np.abs(difference).max() <= 1


def test_pixels_use_the_whole_range_and_are_the_nearest_level():
    model = decoder(sharpness=50)
    images, _ = sample(open_model(sampler_model(model, LATENT_DIM)), [0] * 20, range(20), [1] * 20)
    assert images.min() == 0
    assert images.max() == 255
    grey = decoder(sharpness=0)
    grey.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros(CHANNELS * HEIGHT * WIDTH, np.float32), "bias"))
    images, _ = sample(open_model(sampler_model(grey, LATENT_DIM)), [0], [0], [1])
    assert set(np.unique(images)) <= {127, 128}  # of 0.5, which lies midway


def test_conditional_decoder_keeps_its_label():
    model = decoder(conditional=True)
    label = np.arange(20) % CLASSES
    images, z = sample(open_model(sampler_model(model, LATENT_DIM)), [1] * 20, range(20), [1] * 20, label=label)
    np.testing.assert_array_equal(images, expected_pixels(model, z, label=label))
    assert len(np.unique(images[[0, 1]], axis=0)) == 2


@pytest.mark.parametrize("conditional", [False, True])
def test_sampler_is_a_valid_model_with_the_promised_inputs_and_outputs(conditional):
    model = sampler_model(decoder(conditional), LATENT_DIM)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["seed", "index", "temperature"] + ["label"] * conditional
    assert [value.name for value in model.graph.output] == ["images", "z"]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in [*model.graph.input, *model.graph.output]} == {
        "n"
    }
