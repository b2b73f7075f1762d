"""Draw images from `vae serve` or from NVIDIA's Triton server, with Triton's own client, and score them."""

import argparse
import os
import sys

import numpy as np
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

SEED_LIMIT = 2**63


def infer(client: triton.InferenceServerClient, model: str, **rows: np.ndarray) -> dict[str, np.ndarray]:
    """Run sampler, decoder, encoder or scorer on n rows; each array, in and out, has them as its first dimension."""
    inputs = []
    for name, array in rows.items():
        array = array.reshape(len(array), -1) if array.ndim == 1 else array  # Triton wants a value a row as [n, 1]
        inputs.append(triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    result = client.infer(model, inputs)
    return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}


class Bearer(triton.InferenceServerClientPlugin):
    """Sends the token that `vae serve` asks for where it can be reached from elsewhere."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: triton.Request) -> None:
        """Add the header to a request."""
        request.headers["authorization"] = f"Bearer {self._token}"


def main() -> None:
    """Draw a seed's images, write them side by side as one PNG, and score them."""
    arguments = parse_arguments()
    n = arguments.count
    rows = {"seed": np.full(n, arguments.seed), "index": np.arange(n), "temperature": np.ones(n, np.float32)}
    with triton.InferenceServerClient(arguments.server) as client:
        if token := os.environ.get("VAE_TOKEN"):
            client.register_plugin(Bearer(token))
        images = infer(client, "sampler", **rows)["images"]  # uint8 [n, H, W, C]
        scores = infer(client, "scorer", images=images)["score"]
    strip = np.concatenate(list(images), axis=1)
    Image.fromarray(strip[..., 0] if strip.shape[2] == 1 else strip).save(arguments.out, format="PNG")
    print(f"{arguments.out}: {n} images of seed {arguments.seed}, scores {scores.min():.1f} to {scores.max():.1f} nats")


def parse_arguments() -> argparse.Namespace:
    """The command line, each value within what a model takes: Triton itself computes with any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", help="HOST:PORT")
    parser.add_argument("out", help="the PNG to write")
    parser.add_argument("--seed", type=int, default=0, help="0 to 2^63 - 1")
    parser.add_argument("--count", type=int, default=8, help="images")
    arguments = parser.parse_args()
    if not 0 <= arguments.seed < SEED_LIMIT:
        parser.error(f"--seed is {arguments.seed}; expected 0 to {SEED_LIMIT - 1}")
    if arguments.count < 1:
        parser.error(f"--count is {arguments.count}; expected at least 1")
    return arguments


if __name__ == "__main__":
    try:
        main()
    except InferenceServerException as error:  # the server's own words, such as an unknown model or a missing token
        sys.exit(f"error: {sys.argv[1]}: {' '.join(str(error).split())}")
    except OSError as error:
        sys.exit(f"error: {error.filename or sys.argv[1]}: {error.strerror or error}")
