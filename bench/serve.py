"""How many images a second a server gives to concurrent clients: a closed loop over loopback.

    vae serve & python bench/serve.py http://127.0.0.1:8000 [--clients 32] [--images 16] [--seconds 10]
    mlflow models serve ... & python bench/serve.py ... --mlflow http://127.0.0.1:5001

Every client asks again as soon as it is answered, over one connection that stays open. The first second is not
counted. The clients share the machine's cores with the server, so the figures are lower bounds. `--mlflow` measures
a decoder behind `mlflow models serve` in the same run: as many latents a request, sent as JSON.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from urllib.parse import urlsplit


async def load(url: str, request: list[bytes], clients: int, seconds: float) -> list[float]:
    """The latencies of every request answered in `seconds`; raises on any status but 200."""
    split = urlsplit(url)
    start = time.perf_counter() + 1
    latencies: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection(split.hostname, split.port)
        while (sent := time.perf_counter()) < start + seconds:
            writer.write(random.choice(request))  # noqa: S311
            await _answer(reader)
            if sent >= start:
                latencies.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return latencies


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(head.decode(errors="replace"))
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.partition(b":")[2]))


def sampling(url: str, images: int) -> list[bytes]:
    head = f"Host: {urlsplit(url).netloc}\r\nAccept: application/octet-stream\r\n\r\n"
    return [f"GET /sample?count={images}&seed={seed} HTTP/1.1\r\n{head}".encode() for seed in range(1000)]


def scoring(url: str, images: int, latent_dim: int) -> list[bytes]:
    z = [[random.gauss(0, 1) for _ in range(latent_dim)] for _ in range(images)]
    body = json.dumps({"inputs": {"z": z}}).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body]


def report(name: str, latencies: list[float], images: int, seconds: float) -> float:
    cuts = statistics.quantiles(latencies, n=100)
    rate = len(latencies) * images / seconds
    figures = f"{len(latencies) / seconds:8.0f} requests/s {rate:9.0f} images/s"
    print(f"{name:<10}{figures}   p50 {1000 * cuts[49]:6.1f} ms   p99 {1000 * cuts[98]:6.1f} ms")
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--mlflow", help="address of `mlflow models serve` on the decoder")
    parser.add_argument("--latent-dim", type=int, default=12)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    found = asyncio.run(load(asked.url, sampling(asked.url, asked.images), asked.clients, asked.seconds))
    ours = report("vae serve", found, asked.images, asked.seconds)
    if asked.mlflow:
        requests = scoring(asked.mlflow, asked.images, asked.latent_dim)
        found = asyncio.run(load(asked.mlflow, requests, asked.clients, asked.seconds))
        theirs = report("mlflow", found, asked.images, asked.seconds)
        print(f"ratio {ours / theirs:.1f}")


if __name__ == "__main__":
    main()
