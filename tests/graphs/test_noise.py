import numpy as np
import onnx
import pytest
from noise_graph import noise_model
from onnxruntime import InferenceSession

from pipeline.errors import UserError
from pipeline.graphs.versions import IR_VERSION, OPSET
from pipeline.runtime.noise import INDEX_LIMIT, SEED_LIMIT, random_integers, standard_normal

LATENT_DIM = 7
EDGE_SEEDS = [0, 1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, SEED_LIMIT - 1]
EDGE_INDICES = [0, 1, 2**16, 2**31, 2**32 - 1, 2**47, INDEX_LIMIT - 1]

# float32 angles and radii are computed alike; log, cos and sin may each differ by an ulp or two, and a radius
# is below 9.5: 9.5 * 2^-23 * 3 is 3e-6.
TOLERANCE = 3e-6


def session(latent_dim=LATENT_DIM):
    content = noise_model(latent_dim).SerializeToString()
    return InferenceSession(content, providers=["CPUExecutionProvider"])


def edges():
    seed, index = (grid.ravel() for grid in np.meshgrid(EDGE_SEEDS, EDGE_INDICES, indexing="ij"))
    return seed.astype(np.int64), index.astype(np.int64)


def draw(noise, seed, index):
    return noise.run(["eps", "bits"], {"seed": np.array(seed, np.int64), "index": np.array(index, np.int64)})


@pytest.mark.parametrize("latent_dim", [1, 2, 7, 20])
def test_graph_gives_the_integers_of_the_definition_bit_for_bit(latent_dim):
    seed, index = edges()
    _, bits = draw(session(latent_dim), seed, index)
    assert bits.dtype == np.uint64
    np.testing.assert_array_equal(bits, random_integers(seed, index, 2 * ((latent_dim + 1) // 2)))


@pytest.mark.parametrize("latent_dim", [1, 2, 7, 20])
def test_graph_gives_the_normals_of_the_definition_to_rounding(latent_dim):
    seed, index = edges()
    eps, _ = draw(session(latent_dim), seed, index)
    assert eps.dtype == np.float32
    np.testing.assert_allclose(eps, standard_normal(seed, index, latent_dim), rtol=0, atol=TOLERANCE)


def test_graph_equals_the_definition_over_many_random_rows():
    rng = np.random.default_rng(0)
    seed, index = rng.integers(0, SEED_LIMIT - 1, 50_000), rng.integers(0, INDEX_LIMIT, 50_000)
    eps, bits = draw(session(20), seed, index)
    np.testing.assert_array_equal(bits, random_integers(seed, index, 20))
    np.testing.assert_allclose(eps, standard_normal(seed, index, 20), rtol=0, atol=TOLERANCE)


def test_a_row_is_the_same_in_any_order_and_any_company():
    seed, index = edges()
    noise = session()
    eps, bits = draw(noise, seed, index)
    order = np.random.default_rng(0).permutation(len(seed))
    shuffled_eps, shuffled_bits = draw(noise, seed[order], index[order])
    np.testing.assert_array_equal(shuffled_bits, bits[order])
    np.testing.assert_allclose(shuffled_eps, eps[order], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 40])
def test_split_calls_give_what_one_call_gives(batch_size):
    noise, n = session(), 100
    eps, bits = draw(noise, [7] * n, range(n))
    parts = [range(first, min(first + batch_size, n)) for first in range(0, n, batch_size)]
    split_eps, split_bits = (
        np.concatenate(outputs) for outputs in zip(*(draw(noise, [7] * len(part), part) for part in parts), strict=True)
    )
    np.testing.assert_array_equal(split_bits, bits)
    np.testing.assert_allclose(split_eps, eps, rtol=0, atol=TOLERANCE)


def test_a_row_without_company_is_served():
    eps, _ = draw(session(), [3], [5])
    assert eps.shape == (1, LATENT_DIM)


def test_model_is_valid_and_readable_by_older_runtimes():
    model = noise_model(LATENT_DIM)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == IR_VERSION == 10
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]


def test_every_operator_has_kernels_for_cpu_cuda_and_wasm():
    served = {"Add", "Cast", "Concat", "Cos", "Div", "HardSigmoid", "Log", "Mul", "Sin", "Slice", "Sqrt", "Transpose"}
    assert {node.op_type for node in noise_model(LATENT_DIM).graph.node} <= served


def test_every_inner_name_carries_the_prefix():
    graph = noise_model(LATENT_DIM).graph
    made = {name for node in graph.node for name in [node.name, *node.output]} - {"eps", "bits"}
    made |= {constant.name for constant in graph.initializer}
    assert all(name.startswith("noise/") or name in {"eps_node", "bits_node"} for name in made)


@pytest.mark.parametrize("latent_dim", [0, -1, 2**17 + 1])
def test_latent_dim_without_counters_is_refused(latent_dim):
    with pytest.raises(UserError, match=f"latent_dim is {latent_dim}; expected"):
        noise_model(latent_dim)
