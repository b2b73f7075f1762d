"""A load of bounded length on the whole server: no request fails, and no image depends on its company."""

import asyncio
import io
import random
import re

import httpx
import numpy as np
from server_process import vae_serve

from pipeline.runtime import Sampler

CLIENTS, REQUESTS, MOST_IMAGES = 32, 2000, 20


async def load(address, asked):
    """Bodies of the answers, in order; all must be 200."""
    answers, waiting = [b""] * len(asked), list(enumerate(asked))

    async def client():
        reader, writer = await asyncio.open_connection(*address.split(":"))
        while waiting:
            at, (seed, first, count) = waiting.pop()
            path = f"/sample?seed={seed}&first={first}&count={count}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/x-npy\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            answers[at] = await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
            assert head.startswith(b"http/1.1 200"), answers[at]
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return [np.load(io.BytesIO(answer), allow_pickle=False) for answer in answers]


def test_under_load_every_request_is_answered_with_the_images_of_the_sampler(mlp):
    drawing = random.Random(0)  # noqa: S311
    asked = [(drawing.randrange(40), drawing.randrange(200), drawing.randint(1, MOST_IMAGES)) for _ in range(REQUESTS)]
    with vae_serve(mlp.folder) as address:
        answers = asyncio.run(load(address, asked))
        metrics = httpx.get(f"http://{address}/metrics").text
    sampler = Sampler(mlp.folder, "cpu")
    drawn = {seed: sampler.sample(200 + MOST_IMAGES, seed=seed) for seed in range(40)}
    images = np.concatenate(answers).astype(int)
    expected = np.concatenate([drawn[seed][first : first + count] for seed, first, count in asked])
    assert np.abs(images - expected).max() <= 1
    # Pixels that differ at all lie between two grey levels, where the last bit of z decides: hardly any do.
    assert (images != expected).mean() < 1e-4
    assert f'vae_requests_total{{route="/sample",status="200"}} {REQUESTS:.1f}' in metrics
    assert f'vae_rows_total{{graph="sampler"}} {len(expected):.1f}' in metrics
    runs = next(line for line in metrics.splitlines() if line.startswith('vae_batch_rows_count{graph="sampler"}'))
    assert float(runs.split()[1]) < 0.9 * REQUESTS  # requests did share runs
