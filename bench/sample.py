"""How fast `Sampler` is beside a bare onnxruntime session and torch eager, all of it in one run, interleaved.

    python bench/sample.py [--rounds 25] [--parts warm one cold]
    python bench/sample.py --parts cuda

The models are the default network of params.yaml and the paper's (recipes/paper-mnist.yaml), exported here with random
weights: speed does not depend on what they are.

warm: `Sampler.sample(n, seed)` to uint8 pixels, against sessions with onnxruntime's default options that are handed a
    ready z. `pixels`: sampler.onnx cut at z, so the same decoder and the same conversion to uint8. `means`:
    decoder.onnx to float32 means, and no conversion at all. `numpy`: decoder.onnx, and the conversion in numpy.
one: `Sampler.sample(1, seed)` against torch eager in inference mode, from a seed to uint8 pixels in numpy as well;
    seeded by `torch.manual_seed`, or by a generator kept from call to call (`generator`). With one thread and with
    two; the faster counts. `run` is a bare session of the whole sampler.onnx that is handed its rows ready. `floor` is
    what no seeded sampler on onnxruntime can be faster than: sampler.onnx cut at z, with input and output bound.
cold: from the start of a process to its first image, as a script and as `vae sample`; files in the page cache.
cuda: `Sampler.sample(n, seed)` on a GPU, where its runs are captured CUDA graphs, against the same session uncaptured,
    the Sampler on this machine's CPU, and torch eager on the GPU; each from a seed to uint8 pixels in numpy.

A block of calls of one contender is timed call by call and gives a median; contenders take turns, block by block, in an
order that changes, and a ratio is the median of the rounds' ratios, beside its quartiles. With two cores any other work
shows: run it on an idle machine, or as `chrt -r 1 python bench/sample.py`.
"""

import argparse
import copy
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from pipeline.files import write_files, write_json
from pipeline.graphs.build import build_files
from pipeline.graphs.manifest import build_manifest
from pipeline.params import PARAMS_FILE, check_params, read_yaml
from pipeline.recipe import load_recipe
from pipeline.runtime import Sampler
from pipeline.runtime.draws import rows
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.pixels import to_pixels
from pipeline.vae.model import VAE, VAEConfig

SHAPE = (1, 28, 28)
BATCHES = (64, 256, 1024)
BLOCK_SECONDS, WARM_CALLS, PAUSE_SECONDS = 0.04, 5, 0.01
PAPER = Path("recipes/paper-mnist.yaml")

Call = Callable[[], object]
Session = onnxruntime.InferenceSession


def networks() -> dict[str, VAE]:
    base = read_yaml(PARAMS_FILE)
    contents = {"default": base, "paper": load_recipe(PAPER, base).applied_to(base)}
    models = {name: check_params(content, name).model for name, content in contents.items()}
    torch.manual_seed(0)
    return {
        name: VAE(
            VAEConfig(SHAPE, m.network, tuple(m.hidden), m.activation, m.latent_dim, m.likelihood, m.sigma)
        ).eval()
        for name, m in models.items()
    }


def export(vae: VAE, folder: Path) -> Path:
    config = vae.config
    metadata = Metadata("", config.latent_dim, SHAPE, config.likelihood, "standard", "elbo", "", "", "", "")
    validation = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    files = build_files(vae, metadata, 1, validation)
    write_files(folder, files)
    write_json(folder / "manifest.json", build_manifest(files))
    return folder


def bare(model: bytes) -> Session:
    return Session(model, providers=["CPUExecutionProvider"])


def cut_at_z(folder: Path) -> bytes:
    model = onnx.load(folder / "sampler.onnx")
    return onnx.utils.Extractor(model).extract_model(["z"], ["images"]).SerializeToString()


def bound_at_z(folder: Path, latent_dim: int) -> Call:
    session = bare(cut_at_z(folder))
    z = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, latent_dim), np.float32))
    pixels = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, *SHAPE[1:], SHAPE[0]), np.uint8))
    binding = session.io_binding()
    binding.bind_ortvalue_input("z", z)
    binding.bind_ortvalue_output("images", pixels)
    return lambda: session.run_with_iobinding(binding)


def medians(contenders: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each contender, round by round."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in random.sample(list(contenders.items()), len(contenders)):
            time.sleep(PAUSE_SECONDS)  # another session's threads go to sleep
            for _ in range(WARM_CALLS):
                call()
            found[name].append(_block(call))
    return found


def _block(call: Call) -> float:
    durations: list[float] = []
    end = time.perf_counter() + BLOCK_SECONDS
    while (start := time.perf_counter()) < end:
        call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def ratios(over: list[float], under: list[float]) -> str:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def micros(durations: list[float]) -> str:
    return f"{1e6 * statistics.median(durations):,.0f}"


def warm(folder: Path, latent_dim: int, n: int, rounds: int) -> str:
    sampler = Sampler(folder, "cpu", batch_size=max(BATCHES))
    pixels, decoder = bare(cut_at_z(folder)), bare((folder / "decoder.onnx").read_bytes())
    z = np.random.default_rng(0).standard_normal((n, latent_dim)).astype(np.float32)
    contenders = {
        "ours": lambda: sampler.sample(n, seed=7),
        "pixels": lambda: pixels.run(["images"], {"z": z})[0],
        "means": lambda: decoder.run(["x"], {"z": z})[0],
        "numpy": lambda: to_pixels(decoder.run(["x"], {"z": z})[0]),
    }
    found = medians(contenders, rounds)
    times = " | ".join(micros(durations) for durations in found.values())
    against = " | ".join(ratios(found["ours"], found[name]) for name in ("pixels", "means", "numpy"))
    return f"{n} | {times} | {against} |"


def one(folder: Path, vae: VAE, rounds: int) -> str:
    sampler, kept = Sampler(folder, "cpu"), torch.Generator()
    latent_dim = vae.config.latent_dim

    @torch.inference_mode()
    def eager(seed: Callable[[int], torch.Generator]) -> object:
        z = torch.randn(1, latent_dim, generator=seed(7))
        return (vae.mean(z) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def in_threads(threads: int, seed: Callable[[int], torch.Generator]) -> Call:
        def call() -> None:
            torch.set_num_threads(threads)
            eager(seed)

        return call

    seeds = {"manual_seed": torch.manual_seed, "generator": kept.manual_seed}
    eagers = {f"{name} {threads}": in_threads(threads, seed) for name, seed in seeds.items() for threads in (1, 2)}
    session, row = bare((folder / "sampler.onnx").read_bytes()), rows(1, 7, 0, 1.0)
    bares = {"run": lambda: session.run(["images"], row), "floor": bound_at_z(folder, latent_dim)}
    found = medians({"ours": lambda: sampler.sample(1, seed=7), **bares, **eagers}, rounds)
    faster = {name: min((found[f"{name} {threads}"] for threads in (1, 2)), key=statistics.median) for name in seeds}
    times = " | ".join(map(micros, [found["ours"], *(found[name] for name in bares), *faster.values()]))
    over = [*((durations, found["ours"]) for durations in faster.values()), (faster["generator"], found["floor"])]
    return f"{times} | " + " | ".join(ratios(*pair) for pair in over) + " |"


def on_cuda(folder: Path, vae: VAE, n: int, rounds: int) -> str:
    sampler, on_cpu = (Sampler(folder, device, batch_size=max(BATCHES)) for device in ("cuda", "cpu"))
    plain, row, generator = sampler.session("sampler.onnx"), rows(n, 7, 0, 1.0), torch.Generator("cuda")
    model = copy.deepcopy(vae).to("cuda")

    @torch.inference_mode()
    def eager() -> object:
        z = torch.randn(n, vae.config.latent_dim, generator=generator.manual_seed(7), device="cuda")
        return (model.mean(z) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    contenders = {
        "ours": lambda: sampler.sample(n, seed=7),
        "uncaptured": lambda: plain.run(["images"], row),
        "cpu": lambda: on_cpu.sample(n, seed=7),
        "eager": eager,
    }
    found = medians(contenders, rounds)
    times = " | ".join(micros(durations) for durations in found.values())
    return f"{n} | {times} | " + " | ".join(ratios(found[name], found["ours"]) for name in list(found)[1:]) + " |"


def cold(folder: Path, rounds: int) -> str:
    draw = f"from pipeline.runtime import Sampler; print(Sampler({str(folder)!r}, 'cpu').sample(1).shape, flush=True)"
    vae = ["sample", "-n", "1", "--model", str(folder), "--device", "cpu", "-o", str(folder / "one.png")]
    commands = {
        "nothing but `import numpy, onnxruntime`": ["-c", "import numpy, onnxruntime; print(flush=True)"],
        "`Sampler(folder).sample(1)`": ["-c", draw],
        "`vae sample -n 1 -o one.png`": ["-m", "pipeline.cli", *vae],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, arguments in commands.items():
            found[name].append(_until_first_line(arguments))
    return "\n".join(
        f"| {name} | {statistics.median(seconds):.2f} s | {min(seconds):.2f} to {max(seconds):.2f} s |"
        for name, seconds in found.items()
    )


def _until_first_line(arguments: list[str]) -> float:
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE) as process:
        if not (process.stdout and process.stdout.readline()):
            raise SystemExit(f"{arguments} ended without a line")
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--parts", nargs="+", choices=("warm", "one", "cold", "cuda"), default=["warm", "one", "cold"])
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as place:
        models = {name: (export(vae, Path(place, name)), vae) for name, vae in networks().items()}
        if "warm" in asked.parts:
            print("\n| network | batch | ours, µs | pixels | means | numpy | ours/pixels | ours/means | ours/numpy |")
            for n in BATCHES:
                for name, (folder, vae) in models.items():
                    print(f"| {name} | {warm(folder, vae.config.latent_dim, n, asked.rounds)}", flush=True)
        if "one" in asked.parts:
            print(
                "\n| network | ours, µs | run | floor | manual_seed | generator | both to ours | generator to floor |"
            )
            for name, (folder, vae) in models.items():
                print(f"| {name} | {one(folder, vae, asked.rounds)}", flush=True)
        if "cuda" in asked.parts:
            print(f"\n{torch.cuda.get_device_name()}\n\n| network | batch | ours, µs | uncaptured | CPU | torch eager |"
                  " uncaptured/ours | CPU/ours | eager/ours |")  # fmt: skip
            for n in (1, *BATCHES):
                for name, (folder, vae) in models.items():
                    print(f"| {name} | {on_cuda(folder, vae, n, asked.rounds)}", flush=True)
        if "cold" in asked.parts:
            print(f"\n| first image of a process | median of {asked.rounds} | range |")
            print(cold(models["default"][0], asked.rounds))


if __name__ == "__main__":
    main()
