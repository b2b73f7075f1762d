"""Draw images from sampler.onnx with numpy, onnxruntime and Pillow alone: a row of the PNG for each seed."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

SEED_LIMIT = 2**63
INDEX_LIMIT = 2**48
OLDEST_ONNXRUNTIME = (1, 21)  # the first that multiplies unsigned 64-bit integers, as the noise generator does


def main() -> None:
    """Draw each seed's images and write them as one PNG."""
    arguments = parse_arguments()
    session = open_model(arguments.model, arguments.label)
    asked = (arguments.first, arguments.count, arguments.temperature, arguments.label)
    rows = [draw(session, seed, *asked) for seed in arguments.seeds]
    grid(rows).save(arguments.out, format="PNG")
    print(f"{arguments.out}: {len(rows)} x {arguments.count} images")


def open_model(file: Path, label: int | None) -> onnxruntime.InferenceSession:
    """The session of a sampler.onnx that takes what will be asked; any other file ends the program with one line."""
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        sys.exit(f"error: {file}: {why_not_opened(error)}")
    inputs = [tensor.name for tensor in session.get_inputs()]
    if inputs[:3] != ["seed", "index", "temperature"]:
        sys.exit(f"error: {file}: its inputs are {', '.join(inputs)}; expected a sampler.onnx, which takes a seed")
    classes = len(json.loads(session.get_modelmeta().custom_metadata_map.get("labels", "[]")))
    if classes and (label is None or not 0 <= label < classes):
        sys.exit(f"error: --label is {label}; expected 0 to {classes - 1}, since {file} draws images of a class")
    if label is not None and not classes:
        sys.exit(f"error: --label is {label}; expected none, since {file} has no classes")
    return session


def why_not_opened(error: Exception) -> str:
    """What is wrong with a file that onnxruntime refuses, or with onnxruntime."""
    said, version = " ".join(str(error).split())[:100], onnxruntime.__version__
    if tuple(map(int, version.split(".")[:2])) < OLDEST_ONNXRUNTIME:
        oldest = ".".join(map(str, OLDEST_ONNXRUNTIME))
        return f"onnxruntime is {version}; expected {oldest} or newer ({said})"
    return f"not a whole ONNX file ({said})"


def draw(
    session: onnxruntime.InferenceSession, seed: int, first: int, count: int, temperature: float, label: int | None
) -> np.ndarray:
    """Images number first to first + count - 1 of a seed, uint8 [count, H, W, C]."""
    rows = {
        "seed": np.full(count, seed, np.int64),
        "index": np.arange(first, first + count, dtype=np.int64),
        "temperature": np.full(count, temperature, np.float32),
    }
    if label is not None:
        rows["label"] = np.full(count, label, np.int64)
    return session.run(["images"], rows)[0]


def grid(rows: list[np.ndarray]) -> Image.Image:
    """Each uint8 [count, H, W, C] becomes a row of images side by side."""
    pixels = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])  # [rows * H, count * W, C]
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def parse_arguments() -> argparse.Namespace:
    """The command line, each value within what the model takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="sampler.onnx")
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="0 to 2^63 - 1; one row each")
    parser.add_argument("--count", type=int, default=8, help="images of each seed")
    parser.add_argument("--first", type=int, default=0, help="index of the first image of each seed")
    parser.add_argument("--temperature", type=float, default=1.0, help="scales the distance from the prior's centre")
    parser.add_argument("--label", type=int, help="of a conditional model: the number of the class")
    arguments = parser.parse_args()
    if not all(0 <= seed < SEED_LIMIT for seed in arguments.seeds):
        parser.error(f"--seeds are {arguments.seeds}; expected whole numbers from 0 to {SEED_LIMIT - 1}")
    if arguments.count < 1:
        parser.error(f"--count is {arguments.count}; expected at least 1")
    if not 0 <= arguments.first <= INDEX_LIMIT - arguments.count:
        parser.error(f"--first is {arguments.first}; expected 0 to {INDEX_LIMIT - arguments.count}")
    if not 0 <= arguments.temperature <= 1000:
        parser.error(f"--temperature is {arguments.temperature}; expected 0 to 1000")
    if not arguments.model.is_file():
        parser.error(f"{arguments.model}: not found; expected the sampler.onnx of an export folder")
    return arguments


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
