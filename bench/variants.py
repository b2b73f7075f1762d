"""Which int8 pays: ways to quantise the exported decoder, each against float32, by the export's own measures.

    python bench/variants.py data/prepared models/checkpoint models/export

Every sampler takes turns with float32's in one process (pipeline/graphs/variants/speed.py); quality is measured as for
the card. `dynamic` and `static QDQ` are onnxruntime.quantization's own ways. The folder must hold a float32 export of
the checkpoint.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from pipeline.assembly import some_evenly, yardstick_of
from pipeline.checkpoint import load_checkpoint
from pipeline.dataset.store import open_prepared
from pipeline.graphs.variants import choice, quantise
from pipeline.graphs.variants.half import to_half
from pipeline.graphs.variants.layers import layers, ranges
from pipeline.graphs.variants.quality import SAMPLES
from pipeline.graphs.variants.speed import SIZES, measure_speedups
from pipeline.runtime.manifest import read_manifest
from pipeline.runtime.sampler import DECODER, ENCODER, SAMPLER


class Latents(CalibrationDataReader):
    def __init__(self, z):
        self.parts = iter(np.array_split(z, 8))

    def get_next(self):
        part = next(self.parts, None)
        return None if part is None else {"z": part}


def with_tool(decoder, tool, **options):
    """A decoder that one of onnxruntime's tools made of a decoder."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        model = onnx.ModelProto.FromString(decoder.SerializeToString())
        del model.graph.value_info[:]  # the tool splits a Gemm in two and trips over the shapes of old
        onnx.save(model, before)
        tool(before, after, **options)
        return onnx.load(after)


def ours(decoder, z, **changes):
    """A decoder by `quantise`, with parts of it replaced."""
    with ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(mock.patch.object(quantise, name, value))
        return quantise.quantise(decoder, ranges(decoder, quantise.ranged_tensors(decoder.graph), z))


def one_step(weight):
    step = np.abs(weight).max() / quantise.WEIGHT_LEVELS
    return np.rint(weight / step).astype(np.int8), np.full(len(weight), step, np.float32)


def candidates(decoder, z):
    int8 = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    static = int8 | {"calibration_data_reader": Latents(z), "quant_format": QuantFormat.QDQ}
    yield "dynamic, per channel", with_tool(decoder, quantize_dynamic, **int8)
    yield "static QDQ, per channel", with_tool(decoder, quantize_static, **static)
    yield "**ours**: all but the first layer", ours(decoder, z)
    yield "ours, the first layer too", ours(decoder, z, quantised_layers=layers)
    yield "ours, the last layer float32", ours(decoder, z, quantised_layers=lambda graph: layers(graph)[1:-1])
    yield "ours, one scale a layer", ours(decoder, z, _whole_numbers=one_step)
    yield "ours, weights of eight bits", ours(decoder, z, WEIGHT_LEVELS=127)
    yield "fp16 on the CPU", to_half(decoder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "checkpoint", "export"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    checkpoint, data = load_checkpoint(asked.checkpoint), open_prepared(asked.data)
    files = {name: read_manifest(asked.export).read(name) for name in (SAMPLER, DECODER, ENCODER)}
    decoder = onnx.load_from_string(files[DECODER])
    yardstick = yardstick_of(files, checkpoint, data)
    z = choice.latents(files, np.moveaxis(some_evenly(data.val.images, SAMPLES), 1, -1))
    print(f"| | {' | '.join(f'speed at {n}' for n in SIZES)} | loss, nats | PSNR, dB | a row's batch changes it by |")
    print(f"|---|{'---|' * (len(SIZES) + 3)}")
    for name, model in candidates(decoder, z):
        made = choice.finish_pair(model, files, "int8")
        speed = " | ".join(f"{ratio:.2f}" for ratio in measure_speedups(files[SAMPLER], made[SAMPLER], "cpu").values())
        found = yardstick.measure(made, "cpu")
        loss = f"{found.loss.value:.3f} ± {found.loss.stderr:.3f}"
        print(f"| {name} | {speed} | {loss} | {found.psnr:.1f} | {found.split_grey_levels} |", flush=True)


if __name__ == "__main__":
    main()
