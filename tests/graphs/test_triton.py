"""The model repository, read by Triton's own definition of its configuration and run by the oldest onnxruntime."""

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from noise_graph import noise_model
from onnx import TensorProto, helper
from samplers import (
    MIXTURES,
    SAMPLERS,
    assert_same_choice,
    assert_same_draws,
    draw,
    given_to,
    make_samplers,
    with_choice,
)

from pipeline.graphs.triton import model_config, triton_repository
from pipeline.graphs.versions import OLDEST_ONNXRUNTIME
from pipeline.runtime import open_session, providers
from pipeline.runtime.describe import describe
from pipeline.runtime.noise import INDEX_LIMIT, SEED_LIMIT, random_integers
from pipeline.runtime.sampler import DECODER, ENCODER, SAMPLER, SCORER

HERE = Path(__file__).parent
MODELS = {"sampler": SAMPLER, "decoder": DECODER, "encoder": ENCODER, "scorer": SCORER}
TRITON_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "uint8": "TYPE_UINT8"}


@pytest.fixture
def run_there(triton_environment):
    """Runs a script of this folder in the environment; returns what it printed."""

    def run(script, *arguments):
        command = [triton_environment, "-I", HERE / script, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not ended.returncode, ended.stderr
        return ended.stdout

    return run


@pytest.fixture
def configs(exported, run_there):
    return json.loads(run_there("triton_configs.py", exported.folder / "triton"))


def test_there_is_a_model_for_each_file_and_none_for_another(mlp):
    names = {path.split("/")[1] for path in triton_repository({**mlp.files, "notes.onnx": b""})}
    assert names == set(MODELS)
    assert set(triton_repository({SAMPLER: mlp.files[SAMPLER]})) == {
        "triton/sampler/config.pbtxt",
        "triton/sampler/1/model.onnx",
    }


def test_the_label_of_a_conditional_model_is_a_value_a_row(mlp):
    z, label = (
        helper.make_tensor_value_info(*value)
        for value in (("z", TensorProto.FLOAT, ["n", 3]), ("label", TensorProto.INT64, ["n"]))
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])
    model = helper.make_model(helper.make_graph([], "decoder", [z, label], [x]))
    helper.set_model_props(model, mlp.metadata.to_strings())
    config = model_config(DECODER, model.SerializeToString())
    assert '{ name: "label", data_type: TYPE_INT64, dims: [ 1 ], reshape: { shape: [ ] } }' in config
    assert config.count('key: "label", value: { data_type: TYPE_INT64, dims: [ 1 ], zero_data: true }') == 2


def test_of_large_images_a_server_takes_fewer_rows_at_once(mlp):
    model = onnx.load_from_string(mlp.files[DECODER])
    large = dataclasses.replace(mlp.metadata, image_shape=(3, 256, 256))
    helper.set_model_props(model, large.to_strings())
    assert "max_batch_size: 512\n" in model_config(DECODER, mlp.files[DECODER])
    assert "max_batch_size: 10\n" in model_config(DECODER, model.SerializeToString())


def test_names_types_and_shapes_are_those_of_the_graph(exported, configs):
    assert configs.keys() == MODELS.keys()
    for name, config in configs.items():
        graph = describe(open_session(exported.files[MODELS[name]], "cpu"))
        for side in ("input", "output"):
            assert [in_the_graph(tensor) for tensor in config[side]] == [
                (tensor["name"], TRITON_TYPES[tensor["dtype"]], [-1, *tensor["shape"][1:]])
                for tensor in graph[f"{side}s"]
            ]


def in_the_graph(tensor):
    """A configured tensor as the graph has it: the batch comes before dims, or before what they are reshaped to."""
    shape = tensor["reshape"].get("shape", []) if "reshape" in tensor else tensor["dims"]
    assert tensor["dims"]  # Triton refuses an empty shape
    assert np.prod(list(map(int, tensor["dims"]))) == np.prod(list(map(int, shape)))
    return tensor["name"], tensor["data_type"], [-1, *map(int, shape)]


def test_a_configuration_names_its_model_and_what_runs_it(configs):
    for name, config in configs.items():
        assert (config["name"], config["backend"]) == (name, "onnxruntime")
        assert config["default_model_filename"] == "model.onnx"
        assert config["version_policy"] == {"latest": {"num_versions": 1}}
        assert config["instance_group"] == [{"count": 1}]  # of KIND_AUTO, which is left out since it is the default
        assert config["dynamic_batching"] == {}  # likewise, no delay


def test_as_many_rows_are_joined_as_the_memory_is_bounded_by(configs):
    # The test models' scorer decodes 4 samples of z an image.
    rows = {"sampler": 512, "decoder": 512, "encoder": 512, "scorer": 128}
    assert {name: config["max_batch_size"] for name, config in configs.items()} == rows


def test_every_input_is_warmed_up_alone_and_in_the_largest_batch(configs):
    for config in configs.values():
        one, all_rows = config["model_warmup"]
        assert (one["batch_size"], all_rows["batch_size"]) == (1, config["max_batch_size"])
        expected = {
            tensor["name"]: {"data_type": tensor["data_type"], "dims": tensor["dims"], "zero_data": True}
            for tensor in config["input"]
        }
        assert one["inputs"] == all_rows["inputs"] == expected


def test_cuda_is_used_as_vae_serve_uses_it(configs):
    # What the numbers stand for is said in the README of Triton's onnxruntime backend.
    algorithms, arenas = {"1": "HEURISTIC"}, {"1": "kSameAsRequested"}
    for config in configs.values():
        (accelerator,) = config["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        assert accelerator["name"] == "cuda"
        assert (
            accelerator["parameters"]
            | {
                "cudnn_conv_algo_search": algorithms[parameters["cudnn_conv_algo_search"]],
                "arena_extend_strategy": arenas[parameters["arena_extend_strategy"]],
            }
            == providers._CUDA_OPTIONS
        )


def test_the_oldest_onnxruntime_runs_every_file_and_gives_the_same_numbers(exported, run_there, tmp_path):
    arguments = []
    for name, file in MODELS.items():
        np.savez(tmp_path / f"{name}.npz", **rows_for(file, exported))
        for path in (file, f"triton/{name}/1/model.onnx"):
            outputs = tmp_path / "outputs" / path.replace("/", "-")
            arguments += [exported.folder / path, tmp_path / f"{name}.npz", f"{outputs}.npz"]
    (tmp_path / "outputs").mkdir()
    assert run_there("run_with_onnxruntime.py", *arguments).startswith(f"{OLDEST_ONNXRUNTIME}.")
    for name, file in MODELS.items():
        opened = open_session(exported.files[file], "cpu")
        expected = opened.run(None, rows_for(file, exported))
        for path in (file, f"triton-{name}-1-model.onnx"):
            with np.load(tmp_path / "outputs" / f"{path}.npz") as found:
                for output, values in zip(opened.get_outputs(), expected, strict=True):
                    assert_close(found[output.name], values)


def test_the_oldest_onnxruntime_draws_from_every_kind_of_sampler(mlp, conv, run_there, tmp_path):
    samplers = make_samplers(mlp, conv)
    graphs = samplers | {f"{name}'s choice": with_choice(samplers[name]) for name in MIXTURES}
    given = {"seed": np.full(100, 7), "index": np.arange(100), "temperature": np.linspace(0, 2, 100, dtype=np.float32)}
    arguments = []
    for name, content in graphs.items():
        (tmp_path / name).write_bytes(content)
        np.savez(tmp_path / f"{name} rows.npz", **given_to(name, given))
        arguments += [tmp_path / name, tmp_path / f"{name} rows.npz", tmp_path / f"{name}.npz"]
    assert run_there("run_with_onnxruntime.py", *arguments).startswith(f"{OLDEST_ONNXRUNTIME}.")
    found = {name: np.load(tmp_path / f"{name}.npz") for name in graphs}
    for name in SAMPLERS:
        assert_same_draws(found[name], draw(samplers[name], given_to(name, given)))
    for name in MIXTURES:
        assert_same_choice(found[f"{name}'s choice"], samplers[name], given["seed"], given["index"])


def rows_for(file, exported, n=9):
    rng = np.random.default_rng(0)
    channels, height, width = exported.metadata.image_shape
    images = {"images": rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)}
    z = {"z": rng.standard_normal((n, exported.metadata.latent_dim), np.float32)}
    numbers = {
        "seed": np.array([0, 1, 7, 2**31, 2**53 + 1, SEED_LIMIT - 1, 7, 7, 7]),
        "index": np.array([0, 1, 2**31, INDEX_LIMIT - 1, 5, 6, 0, 1, 2]),
        "temperature": np.array([1, 1, 1, 1, 1, 1, 0, 0.5, 2], np.float32),
    }
    return {SAMPLER: numbers, DECODER: z, ENCODER: images, SCORER: images}[file]


def assert_close(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if found.dtype == np.uint8:
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-6)


def test_the_oldest_onnxruntime_draws_the_integers_of_the_definition_bit_for_bit(run_there, tmp_path):
    rng = np.random.default_rng(0)
    seed, index = rng.integers(0, SEED_LIMIT - 1, 10_000), rng.integers(0, INDEX_LIMIT, 10_000)
    (tmp_path / "noise.onnx").write_bytes(noise_model(7).SerializeToString())
    np.savez(tmp_path / "rows.npz", seed=seed, index=index)
    run_there("run_with_onnxruntime.py", *(tmp_path / name for name in ("noise.onnx", "rows.npz", "found.npz")))
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_array_equal(found["bits"], random_integers(seed, index, 8))
