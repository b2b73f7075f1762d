import dataclasses
import math
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from pipeline.files import write_json
from pipeline.graphs.manifest import build_manifest
from pipeline.graphs.variants import choice
from pipeline.graphs.variants.bound import DecoderBound
from pipeline.graphs.variants.choice import Limits, Outcome, choose_variants
from pipeline.graphs.variants.quality import Estimate, Yardstick
from pipeline.graphs.variants.section import variants_section
from pipeline.runtime import Sampler

FAST = {1: 1.1, 64: 2.0, 512: 3.0}
LIMITS = Limits(min_speedup=1.5, max_loss=0.5)


@pytest.fixture(scope="module")
def yardstick(trained, pictures):
    x = torch.from_numpy(pictures).movedim(3, 1).float() / 255
    return Yardstick(trained.files, DecoderBound(trained.vae, "elbo", x), pictures)


@pytest.fixture
def choose(trained, pictures, yardstick, monkeypatch):
    """The outcomes, by variant, on a machine where int8 has the given speed; a GPU is as fast, if there is one."""

    def run(speedups=FAST, limits=LIMITS, gpu=False, quality=None):
        monkeypatch.setattr(choice, "measure_speedups", lambda plain, variant, device: speedups)
        monkeypatch.setattr(choice, "_serves", lambda device, sampler: gpu or device == "cpu")
        monkeypatch.setattr(yardstick, "measure", measure(quality or {}))
        return {o.variant: o for o in choose_variants(trained.files, yardstick, pictures, limits)}

    def measure(changes):
        return lambda files, device: dataclasses.replace(Yardstick.measure(yardstick, files, "cpu"), **changes)

    return run


def test_what_is_fast_and_good_is_written_and_opens(choose, trained, tmp_path):
    outcomes = choose(gpu=True)
    files = {**trained.files, **outcomes["int8"].files, **outcomes["fp16"].files}
    folder = shutil.copytree(trained.folder, tmp_path / "export")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / "manifest.json", build_manifest(files))
    plain = Sampler(folder, "cpu").sample(50)
    for variant in ("int8", "fp16"):
        sampler = Sampler(folder, "cpu", variant=variant)
        assert sampler.metadata.variant == variant
        assert sampler.metadata.latent_kl == Sampler(folder, "cpu").metadata.latent_kl
        assert np.abs(sampler.sample(50).astype(int) - plain).mean() < 1
        assert np.abs(sampler.decode(sampler.latents(50)).astype(int) - sampler.sample(50)).max() <= 1


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"speedups": FAST | {64: 1.4}}, "it is 1.40 times as fast as float32; export.min_speedup asks for 1.5"),
        ({"speedups": FAST | {512: 0.9}}, "it is 0.90 times as fast as float32; export.min_speedup asks for 1.5"),
        (
            {"quality": {"loss": Estimate(0.75, 0.1)}},
            "it loses 0.75 nats; export.max_quality_loss allows 0.5",
        ),
        (
            {"quality": {"loss": Estimate(math.nan, 0.1)}},
            "it loses nan nats; export.max_quality_loss allows 0.5",
        ),
        (
            {"quality": {"split_grey_levels": 2}},
            "an image differs by 2 grey levels from batch to batch; expected 1 at most",
        ),
    ],
)
def test_what_is_slow_or_lossy_is_not_written_and_says_why(choose, given, refusal):
    outcome = choose(**given)["int8"]
    assert outcome.files == {}
    assert outcome.refusal == refusal
    assert f"**int8** is not written: {refusal}." in variants_section([outcome], "elbo")


def test_a_single_image_does_not_decide(choose):
    assert choose(speedups=FAST | {1: 0.9})["int8"].files


def test_without_a_gpu_fp16_is_measured_for_quality_alone_and_not_written(choose):
    fp16 = choose()["fp16"]
    assert (fp16.files, fp16.speedups) == ({}, None)
    assert fp16.quality.loss.value < 0.01
    text = variants_section([fp16], "elbo")
    assert "**fp16** is not written: its speed counts on a GPU, and the machine that exported has none." in text
    assert "its loss on a GPU was not measured" in text
    assert not [name for name in fp16.metrics if "speedup" in name]


def test_the_metrics_carry_variant_and_measure(choose):
    metrics = choose()["int8"].metrics
    assert set(metrics) == {
        "int8_sample1_speedup",
        "int8_sample64_speedup",
        "int8_sample512_speedup",
        "int8_psnr_db",
        "int8_nll_loss",
        "int8_nll_loss_stderr",
        "int8_kid",
        "int8_kid_stderr",
        "int8_kid_to_fp32",
    }
    assert metrics["int8_sample64_speedup"] == 2.0
    assert all(map(math.isfinite, metrics.values()))


def test_a_decoder_without_a_second_layer_has_no_int8(trained, pictures, yardstick, monkeypatch):
    monkeypatch.setattr(choice, "quantised_layers", lambda graph: [])
    monkeypatch.setattr(choice, "_serves", lambda device, sampler: False)
    int8 = choose_variants(trained.files, yardstick, pictures, LIMITS)[0]
    assert (int8.files, int8.quality) == ({}, None)
    assert "no layer behind its first" in variants_section([int8], "elbo")


def test_nothing_is_told_where_nothing_was_asked_for():
    assert variants_section([], "elbo") == ""
    assert Outcome("int8").metrics == {}


def test_the_card_gives_speed_and_loss(choose):
    text = variants_section(list(choose().values()), "elbo")
    assert "| int8 | 1.10 | 2.00 | 3.00 | " in text
    assert '`sampler.int8.onnx` and `decoder.int8.onnx`; `Sampler(folder, variant="int8")` opens them.' in text
    assert "importance-weighted bound on log p(x) (K = 16)" in text
    assert "log p(x|z) at z = mu" in variants_section(list(choose().values()), "autoencoder")


def test_float32_loses_nothing_against_itself(yardstick, trained):
    found = Yardstick.measure(yardstick, trained.files, "cpu")
    assert found.psnr == pytest.approx(150)
    assert (found.loss.value, found.loss.stderr) == (0, 0)
    assert found.kid_between == pytest.approx(0, abs=1e-9)
    assert found.kid == found.kid_float32


def test_a_damaged_decoder_loses_by_every_measure(yardstick, trained, int8):
    damaged = {}
    for name in ("sampler.onnx", "decoder.onnx"):
        model = onnx.load_from_string(int8[name])
        for tensor in model.graph.initializer:
            if tensor.name.endswith("/weight"):
                coarse = numpy_helper.to_array(tensor) // 16 * 16
                tensor.CopyFrom(numpy_helper.from_array(coarse, tensor.name))
        damaged[name] = model.SerializeToString()
    good, bad = (Yardstick.measure(yardstick, files, "cpu") for files in (int8, damaged))
    assert good.psnr > bad.psnr + 10
    assert 0 < abs(good.loss.value) + 0.1 < bad.loss.value
    assert good.kid_between < bad.kid_between / 10
