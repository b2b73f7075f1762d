"""`vae serve` beside `mlflow models serve` on the same sampler.onnx: images a second, latency, memory.

    python bench/serve.py models/export [--clients 32] [--images 16] [--seconds 6] [--rounds 3]
    python bench/serve.py models/export --other CHECKOUT
    python bench/serve.py models/export --soak 100000

Both servers are started here, on free ports of loopback, and ended at the end. MLflow serves the model as the export
stage logs it, from a store of its own that is thrown away. In every round each server is measured in turn, while the
other one idles. A client asks again as soon as it is answered, over one connection that stays open; the first second
of each measurement is not counted. The clients share the machine's cores with the server.

`--other` measures `vae serve` of another checkout of this repository in place of MLflow's server, in every form.

`--soak` sends so many requests of all kinds to `vae serve` and says what anonymous memory the process holds.
"""

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from load import Answers, by_count, for_seconds, get, post

from pipeline.runtime import Sampler
from pipeline.runtime.server.run import listen

WARM_UP_SECONDS = 1.0
SOAK_STEPS = 10
RAW, JSON, PNG = "application/octet-stream", "application/json", "image/png"


@contextmanager
def vae_serve(model: Path, checkout: Path = Path(__file__).parents[1]) -> Iterator[tuple[str, int]]:
    """The address of `vae serve`, HOST:PORT, and its process id."""
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "serve",
        "--model",
        model.resolve(),
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    env = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout, env=env) as server:
        try:
            said = server.stdout.readline() if server.stdout else ""
            if "http://" not in said:
                raise SystemExit("error: vae serve did not start; it said why above")
            yield said.split("http://")[1].strip(), server.pid
        finally:
            server.terminate()


@contextmanager
def mlflow_serve(model: Path) -> Iterator[str]:
    """The address of `mlflow models serve` on the same sampler, HOST:PORT."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        with listen("127.0.0.1", 0) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        with open(f"{folder}/log", "w") as log:
            command = ["models", "serve", "-m", _logged(model, folder), "--env-manager", "local"]
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts uvicorn by its name
            server = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command, "--port", address.partition(":")[2]],
                env=os.environ | {"PATH": path}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            try:
                by_count(address, [get(address, "/ping")], 1, 1, patience=120)
                yield address
            finally:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(30)


def _logged(model: Path, folder: str) -> str:
    from mlflow.tracking import MlflowClient

    from pipeline.tracking.models import log_sampler

    client = MlflowClient()
    experiment = client.create_experiment("bench", artifact_location=f"{folder}/artifacts")
    return f"models:/{log_sampler(client.create_run(experiment).info.run_id, model / 'sampler.onnx')}"


def sampling(address: str, images: int, form: str) -> list[bytes]:
    return [get(address, f"/sample?count={images}&seed={seed}", form) for seed in range(1000)]


def invoking(address: str, images: int) -> list[bytes]:
    """The same images, as MLflow's server is asked for them."""
    index, temperature = list(range(images)), [1.0] * images
    return [
        post(address, "/invocations", {"inputs": {"seed": [seed] * images, "index": index, "temperature": temperature}})
        for seed in range(1000)
    ]


def all_kinds(address: str, sampler: Sampler, images: int) -> list[bytes]:
    """What a server is asked in its life: mostly samples in every form, and some of what it refuses."""
    drawn = sampler.sample(images, seed=1).tolist()
    z = np.zeros((images, sampler.latent_dim)).tolist()
    others = [
        *(get(address, f"/sample?count={images}&seed={seed}", form) for seed in range(4) for form in (JSON, PNG)),
        *(get(address, f"/sample?count={count}", RAW) for count in (1, 3, 300, 1024)),
        *(post(address, "/decode", {"z": z[:count]}) for count in (1, images)),
        *(post(address, path, {"images": drawn}) for path in ("/encode", "/score")),
        *(get(address, path) for path in ("/", "/metadata", "/metrics", "/sample?count=0", f"/none/{os.getpid()}")),
        post(address, "/interpolate", {"seeds": [3, 8]}),
        post(address, "/decode", {"z": [[1]]}),
    ]
    return [*sampling(address, images, RAW)[: 19 * len(others)], *others]


def compare(asked: argparse.Namespace) -> None:
    with vae_serve(asked.model) as (ours, _), mlflow_serve(asked.model) as theirs:
        requests = {
            "vae serve, raw": (ours, sampling(ours, asked.images, RAW)),
            "vae serve, JSON": (ours, sampling(ours, asked.images, JSON)),
            "mlflow, JSON": (theirs, invoking(theirs, asked.images)),
        }
        rounds = in_turns(requests, asked)
    raw, as_json, mlflow = ([one[name].per_second for one in rounds] for name in requests)
    for name, rates in (("raw", raw), ("JSON", as_json)):
        ratios = [ours / theirs for ours, theirs in zip(rates, mlflow, strict=True)]
        each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        print(f"{name} to mlflow: {statistics.median(ratios):.1f} times (rounds: {each})")


def compare_checkouts(asked: argparse.Namespace) -> None:
    with vae_serve(asked.model) as (ours, _), vae_serve(asked.model, asked.other) as (theirs, _):
        in_turns(
            {
                f"{whose}, {name}": (address, sampling(address, asked.images, form))
                for name, form in {"raw": RAW, "JSON": JSON, "PNG": PNG}.items()
                for whose, address in (("other", theirs), ("this", ours))
            },
            asked,
        )


def in_turns(requests: dict[str, tuple[str, list[bytes]]], asked: argparse.Namespace) -> list[dict[str, Answers]]:
    """What each server answers to its requests, round by round; printed, too."""
    rounds = [
        {
            name: for_seconds(address, some, asked.clients, asked.seconds, WARM_UP_SECONDS)
            for name, (address, some) in requests.items()
        }
        for _ in range(asked.rounds)
    ]
    for name in requests:
        print(f"{name:<17}" + "  |  ".join(figures(one[name], asked.images) for one in rounds))
    return rounds


def figures(found: Answers, images: int) -> str:
    if len(found.latencies) < 2:
        raise SystemExit(f"error: {len(found.latencies)} answers in {found.seconds} s; expected more: give --seconds")
    cuts = statistics.quantiles(found.latencies, n=100)
    return f"{found.per_second * images:8.0f} images/s, p50 {1000 * cuts[49]:6.1f} ms, p99 {1000 * cuts[98]:6.1f} ms"


def soak(asked: argparse.Namespace) -> None:
    with vae_serve(asked.model) as (address, pid):
        requests = all_kinds(address, Sampler(asked.model, "cpu", threads=1), asked.images)
        step = asked.soak // SOAK_STEPS
        for sent in itertools.count(0, step):
            print(f"{sent:8d} requests  {anonymous_memory(pid) / 2**20:7.1f} MiB", flush=True)
            if sent >= asked.soak:
                break
            found = by_count(address, requests, asked.clients, step, any_status=True)
            unexpected = {status: n for status, n in found.statuses.items() if status not in (200, 404, 422)}
            if unexpected:
                raise SystemExit(f"error: answered {unexpected}")


def anonymous_memory(pid: int) -> int:
    """Bytes of the process that no file backs and that are in memory; Linux alone says so."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--images", type=int, default=16, help="of one request")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other", type=Path, help="another checkout, whose `vae serve` is measured in MLflow's place")
    parser.add_argument("--soak", type=int, help="requests to send to `vae serve`, in place of the comparison")
    asked = parser.parse_args()
    (soak if asked.soak else compare_checkouts if asked.other else compare)(asked)


if __name__ == "__main__":
    main()
