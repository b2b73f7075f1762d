"""Captured graphs on the CPU, where nothing is captured but all else is the same; the capture itself needs a GPU."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.runtime import Sampler, export_files, open_session
from pipeline.runtime import sampler as sampler_module
from pipeline.runtime.captured import CapturedGraph, bucket_size, fill_up
from pipeline.runtime.cuda import cuda_device_count
from pipeline.runtime.draws import rows
from pipeline.runtime.pixels import to_pixels
from pipeline.runtime.providers import tensorrt_version
from pipeline.runtime.server.graphs import open_graphs, warm_up, warm_up_sizes


@pytest.fixture
def captured(mlp):
    return CapturedGraph(open_session(mlp.folder / "sampler.onnx", "cpu"), "cpu")


@pytest.mark.parametrize(("rows_", "size"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (512, 512)])
def test_a_bucket_is_the_next_power_of_two(rows_, size):
    assert bucket_size(rows_) == size


def test_what_fills_a_bucket_up_is_the_last_row():
    assert fill_up(np.array([[1, 2], [3, 4]]), 4).tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]
    assert fill_up(np.arange(4)[::2], 2).tolist() == [0, 2]


def test_buckets_give_the_images_of_the_sampler(mlp, captured):
    sampler = Sampler(mlp.folder, "cpu")
    for count in (5, 8, 1, 7, 6):  # three of them share a bucket, and none sees what another left in it
        images, z = captured.run(["images", "z"], rows(count, count, 3, 1.0))
        assert images.shape == (count, 8, 8, 1)
        assert np.array_equal(images, sampler.sample(count, seed=count, first=3))
        np.testing.assert_allclose(z, sampler.latents(count, seed=count, first=3), rtol=0, atol=3e-6)
    assert sorted(captured._buckets) == [1, 8]


def test_a_result_is_not_overwritten_by_the_next_run(captured):
    first = captured.run(["images"], rows(4, 1, 0, 1.0))[0]
    kept = first.copy()
    captured.run(["images"], rows(4, 2, 0, 1.0))
    assert np.array_equal(first, kept)


def test_threads_get_their_own_images(mlp, captured):
    expected = [Sampler(mlp.folder, "cpu").sample(9, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda n: captured.run(["images"], rows(9, n % 8, 0, 1.0))[0], range(80)))
    assert all(np.array_equal(images, expected[n % 8]) for n, images in enumerate(drawn))


def test_a_sampler_on_the_cpu_captures_nothing(mlp):
    sampler = Sampler(mlp.folder, "cpu")
    assert sampler.runner("sampler.onnx") == sampler.session("sampler.onnx").run


@pytest.fixture
def as_if_on_cuda(monkeypatch):
    """What a sampler does on CUDA, done on the CPU."""
    monkeypatch.setattr(export_files, "served_device", lambda _: "cuda")
    monkeypatch.setattr(export_files, "CapturedGraph", partial(CapturedGraph, device="cpu"))


def test_a_sampler_on_cuda_draws_from_captured_graphs_and_leaves_the_session_to_others(mlp, as_if_on_cuda):
    plain, sampler = Sampler(mlp.folder, "cpu"), Sampler(mlp.folder, "cpu", batch_size=16)
    assert sampler._run.__self__._session is not sampler.session("sampler.onnx")
    assert np.array_equal(sampler.sample(50, seed=3), plain.sample(50, seed=3))
    assert sorted(sampler._run.__self__._buckets) == [2, 16]


def test_a_server_on_cuda_runs_every_graph_captured_and_captures_each_once(mlp, as_if_on_cuda):
    sampler = Sampler(mlp.folder, "cpu", batch_size=8)
    for name, graph in open_graphs(sampler).items():
        warm_up(graph, "cuda")
        captured = sampler.runner(f"{name}.onnx").__self__
        assert captured is sampler.runner(f"{name}.onnx").__self__
        assert set(captured._buckets) >= {bucket_size(size) for size in range(1, graph.batch_size + 1)}
    assert sampler.runner("sampler.onnx") == sampler._run


def test_a_sampler_on_cuda_captures_all_its_graphs_in_one_thread(mlp, as_if_on_cuda, monkeypatch):
    sampler, ran = Sampler(mlp.folder, "cpu"), {}
    replay = CapturedGraph._replay

    def replay_and_tell(graph, *asked):
        ran[graph] = threading.get_ident()
        return replay(graph, *asked)

    monkeypatch.setattr(CapturedGraph, "_replay", replay_and_tell)
    images = sampler.sample(3, seed=1)
    mu, _ = sampler.encode(images)
    (means,) = sampler.session("decoder.onnx").run(["x"], {"z": mu})
    assert np.array_equal(sampler.decode(mu), to_pixels(means))
    assert len(ran) == 3
    assert len({threading.get_ident(), *ran.values()}) == 2


@pytest.mark.parametrize(
    ("device", "batch_size", "sizes"),
    [
        ("cpu", 512, [512]),
        ("tensorrt", 512, [1, 512]),
        ("tensorrt", 1, [1]),
        ("cuda", 8, [1, 2, 4, 8]),
        ("cuda", 10, [1, 2, 4, 8, 10]),
        ("cuda", 1, [1]),
    ],
)
def test_a_server_warms_up_what_its_device_prepares_for(device, batch_size, sizes):
    assert warm_up_sizes(device, batch_size) == sizes


def test_a_sampler_on_cuda_says_if_it_cannot_capture(mlp, as_if_on_cuda, monkeypatch):
    def refuse(*_):
        raise UserError("a node has no kernel on CUDA")

    monkeypatch.setattr(export_files, "CapturedGraph", refuse)
    with pytest.warns(RuntimeWarning, match="runs are not captured as CUDA graphs: a node has no kernel on CUDA"):
        sampler = Sampler(mlp.folder, "cpu")
    assert sampler.sample(3).shape == (3, 8, 8, 1)


def test_a_sampler_on_tensorrt_has_engines_built_for_all_sizes_when_it_opens(mlp, monkeypatch):
    drawn = []
    monkeypatch.setattr(sampler_module, "served_device", lambda _: "tensorrt")
    monkeypatch.setattr(Sampler, "_draw", lambda _, output, n, *rest: drawn.append(n))
    Sampler(mlp.folder, "cpu", batch_size=32)
    assert drawn == [1, 32]


@pytest.mark.gpu
@pytest.mark.skipif(cuda_device_count() == 0, reason="needs a CUDA device")
@pytest.mark.filterwarnings("error::RuntimeWarning")  # that runs are not captured
@pytest.mark.parametrize(
    "device",
    [
        "cuda",
        pytest.param(
            "tensorrt", marks=pytest.mark.skipif(tensorrt_version() == "unknown", reason="needs TensorRT's libraries")
        ),
    ],
)
def test_a_gpu_gives_the_images_of_the_cpu(exported, device, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    on_gpu, on_cpu = Sampler(exported.folder, device), Sampler(exported.folder, "cpu")
    for count in (1, 3, 64, 65, 700, 3):
        difference = on_gpu.sample(count, seed=5).astype(int) - on_cpu.sample(count, seed=5)
        assert np.abs(difference).max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(cuda_device_count() == 0, reason="needs a CUDA device")
def test_a_gpu_serves_many_threads(mlp):
    sampler = Sampler(mlp.folder, "cuda")
    expected = [sampler.sample(9, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda n: sampler.sample(9, n % 8), range(200)))
    assert all(np.array_equal(images, expected[n % 8]) for n, images in enumerate(drawn))
