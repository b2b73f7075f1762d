"""Watch a folder and score each new image with scorer.onnx: file, score in nats, and how strange that is.

The score is minus the ELBO; "stranger than 99 %" means that 99 % of the images the model was validated on score lower.
Needs numpy, onnxruntime and Pillow. A file is scored once its size and time stand still from one look to the next, so
that an image which is still being written is not read too early.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

OLDEST_ONNXRUNTIME = (1, 21)  # the first that multiplies unsigned 64-bit integers, as the noise generator does
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # the decoders that a hostile file can reach
MOST_SCANS = 100  # of a progressive JPEG, which has 10; each takes as long as the first, however few its bytes are
LONGEST_INTERVAL = 86_400  # seconds; a system cannot sleep for any number of them

warnings.simplefilter("error", Image.DecompressionBombWarning)


class Scorer:
    """scorer.onnx, and the quantiles of the validation scores that it carries."""

    def __init__(self, file: Path) -> None:
        # A watcher mostly waits: one thread is plenty, and an idle one must not spin.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class
            sys.exit(f"error: {file}: {why_not_opened(error)}")
        metadata = self._session.get_modelmeta().custom_metadata_map
        inputs = [tensor.name for tensor in self._session.get_inputs()]
        if inputs != ["images"] or "score_quantiles" not in metadata:
            expected = "expected a scorer.onnx, of a model without classes"
            sys.exit(f"error: {file}: its inputs are {', '.join(inputs)}; {expected}")
        channels, height, width = json.loads(metadata["image_shape"])
        self.shape = (height, width, channels)
        self._quantiles = json.loads(metadata["score_quantiles"])

    def score(self, image: np.ndarray) -> float:
        """Minus the ELBO of uint8 [H, W, C], in nats; higher is stranger."""
        return float(self._session.run(["score"], {"images": image[None]})[0][0])

    def strangeness(self, score: float) -> float:
        """The percentage of the validation images that score lower."""
        return 100 * float(np.interp(score, self._quantiles["scores"], self._quantiles["levels"]))


def why_not_opened(error: Exception) -> str:
    """What is wrong with a file that onnxruntime refuses, or with onnxruntime."""
    said, version = " ".join(str(error).split())[:100], onnxruntime.__version__
    if tuple(map(int, version.split(".")[:2])) < OLDEST_ONNXRUNTIME:
        oldest = ".".join(map(str, OLDEST_ONNXRUNTIME))
        return f"onnxruntime is {version}; expected {oldest} or newer ({said})"
    return f"not a whole ONNX file ({said})"


def main() -> None:
    """Score what is there, or what arrives."""
    arguments = parse_arguments()
    scorer = Scorer(arguments.model)
    if arguments.once:
        files = sorted(signatures(arguments.folder))
        for file in files:
            report(scorer, file, arguments.resize)
        if not files:
            print(f"{arguments.folder}: no files in it (folders in it are not looked into)", file=sys.stderr)
        return
    for file in new_files(arguments.folder, arguments.interval, arguments.seconds):
        report(scorer, file, arguments.resize)


def new_files(folder: Path, interval: float, seconds: float) -> Iterator[Path]:
    """Files that appeared or changed and then stood still for one interval, for so many seconds."""
    end = time.monotonic() + seconds
    before, done = signatures(folder), {}
    while time.monotonic() < end:
        time.sleep(interval)
        now = signatures(folder)
        for file in sorted(now):
            if now[file] == before.get(file) != done.get(file):
                done[file] = now[file]
                yield file
        before = now


def signatures(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of each file in the folder; names that begin with a dot are ignored."""
    found = {}
    for file in folder.iterdir():
        try:
            if not file.name.startswith(".") and file.is_file():
                status = file.stat()
                found[file] = (status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            continue  # it went away between the listing and the look
    return found


def report(scorer: Scorer, file: Path, resize: bool) -> None:
    """One line on standard output; for what cannot be scored, one on standard error."""
    name = file.name if file.name.isprintable() else ascii(file.name)
    try:
        image = read_image(file, scorer.shape, resize)
    except Exception as error:  # Pillow promises no closed list of what a broken file may raise
        print(f"{name}: not scored: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return
    score = scorer.score(image)
    print(f"{name}\t{score:.6g}\tstranger than {scorer.strangeness(score):.1f} %", flush=True)


def read_image(file: Path, shape: tuple[int, int, int], resize: bool) -> np.ndarray:
    """uint8 [H, W, C] as the model was trained on: upright, transparency on white, 16 bits cut to 8."""
    height, width, channels = shape
    with Image.open(file, formats=FORMATS) as opened:
        if not resize and opened.size not in ((width, height), (height, width)):  # known before a pixel is decoded
            raise another_size(opened, shape)
        if opened.format in ("JPEG", "MPO") and (scans := file.read_bytes().count(b"\xff\xda")) > MOST_SCANS:
            raise ValueError(f"it is a JPEG of {scans} scans, expected at most {MOST_SCANS}")
        if resize:
            opened.draft(None, (2 * max(height, width),) * 2)  # a JPEG may come at a fraction of its size
        image = grey_or_rgb(ImageOps.exif_transpose(opened)).convert("L" if channels == 1 else "RGB")
    if resize:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    if image.size != (width, height):
        raise another_size(image, shape)
    return np.asarray(image).reshape(shape)


def another_size(image: Image.Image, shape: tuple[int, int, int]) -> ValueError:
    """Why an image cannot be scored as it is."""
    found, expected = f"{image.height}x{image.width}", f"{shape[0]}x{shape[1]}"
    return ValueError(f"it is {found}; the model takes {expected} (--resize stretches)")


def grey_or_rgb(image: Image.Image) -> Image.Image:
    """Any mode that the decoders give, as L or RGB."""
    if image.mode.startswith("I"):  # 16 bits a pixel
        levels = np.asarray(image).astype(np.uint32)
        grey = ((levels + 128) // 257).astype(np.uint8)
        if image.has_transparency_data:
            grey[levels == image.info["transparency"]] = 255  # the one level that is transparent, in all its 16 bits
        return Image.fromarray(grey)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        on_white = Image.new("RGBA", image.size, "white")
        on_white.alpha_composite(image.convert("RGBA"))
        return on_white.convert(mode)
    return image.convert(mode)


def parse_arguments() -> argparse.Namespace:
    """The command line, each value checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="scorer.onnx")
    parser.add_argument("folder", type=Path, help="the folder to watch")
    parser.add_argument("--once", action="store_true", help="score what is there, and end")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds from one look to the next")
    parser.add_argument("--resize", action="store_true", help="stretch images of another size")
    arguments = parser.parse_args()
    if not arguments.model.is_file():
        parser.error(f"{arguments.model}: not found; expected the scorer.onnx of an export folder")
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder}: not a folder")
    if not arguments.seconds >= 0:
        parser.error(f"--seconds is {arguments.seconds}; expected at least 0")
    if not 0 < arguments.interval <= LONGEST_INTERVAL:
        parser.error(f"--interval is {arguments.interval}; expected more than 0, and at most {LONGEST_INTERVAL}")
    return arguments


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever reads the lines, as `head` does, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        sys.exit(141)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
