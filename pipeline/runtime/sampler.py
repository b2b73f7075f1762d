"""Seeds in, pixels out: an export folder or a lone sampler.onnx as a Python object."""

import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.draws import check_draw, rows, whole_number
from pipeline.runtime.manifest import read_manifest
from pipeline.runtime.pixels import Images, gather, to_pixels
from pipeline.runtime.scores import ScoreScale
from pipeline.runtime.session import Device, open_session, read_file, read_metadata
from pipeline.runtime.variants import Variant, variant_file

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SAMPLER = "sampler.onnx"
DECODER = "decoder.onnx"
ENCODER = "encoder.onnx"
SCORER = "scorer.onnx"

MAX_IMAGES = 1_000_000  # of one array; it has to fit in memory

Floats = NDArray[np.float32]


class Sampler:
    """Draws images from a trained model, and maps between images and latents where the folder has those files.

    Image i of a seed is a function of (seed, i, temperature) alone: batches, chunks and other callers do not
    change it. One instance serves many threads.

    Attributes:
        metadata: what the file says of itself and where it came from.
        latent_dim: size of z.
        image_shape: (height, width, channels) of one image.
    """

    def __init__(
        self,
        path: Path | str = "models/export",
        device: Device = "auto",
        *,
        threads: int | None = None,
        batch_size: int = 512,
        variant: Variant | None = None,
    ) -> None:
        """Open the sampler; decoder, encoder and scorer are opened when first used.

        Args:
            path: a folder with manifest.json, whose files are verified by their sha256, or one sampler.onnx.
            device: auto, cpu, cuda or tensorrt, as in `open_session`.
            threads: CPU threads for one call; None lets onnxruntime take the machine's cores.
            batch_size: how many images are computed at once; bounds the memory, does not change the images.
            variant: int8 or fp16 opens sampler and decoder in that arithmetic, where the folder holds them;
                a lone file is what it is.

        Raises:
            UserError: a file is missing, damaged or not one of ours; the device cannot be served; the folder
                lacks the variant.
        """
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self._path = Path(path)
        self._manifest = read_manifest(path) if self._path.is_dir() else None
        self._device, self._threads, self._variant = device, threads, variant
        self._opening = threading.Lock()
        self._sessions: dict[str, InferenceSession] = {}
        session = self.session(SAMPLER)
        self.metadata = read_metadata(session, str(self._path))
        channels, height, width = self.metadata.image_shape
        self.latent_dim = self.metadata.latent_dim
        self.image_shape = (height, width, channels)
        self._run = session.run

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the ONNX files at hand: those that the manifest lists, or sampler.onnx alone."""
        return (SAMPLER,) if self._manifest is None else tuple(self._manifest.sha256)

    def session(self, name: str) -> "InferenceSession":
        """The session of one of `files`, opened and verified when it is first asked for; its `run` is thread-safe.

        Raises:
            UserError: there is no such file, it is damaged, or it is another graph.
        """
        with self._opening:
            if name not in self._sessions:
                self._sessions[name] = self._open(name)
            return self._sessions[name]

    def sample(self, n: int, seed: int = 0, first: int = 0, temperature: float = 1.0) -> Images:
        """Images number `first` to `first + n - 1` of `seed`: uint8 [n, H, W, C].

        `temperature` scales the prior's standard deviation: 0 gives the image of z = 0, 1 the model's own samples.

        Raises:
            UserError: n is not in 1..MAX_IMAGES, or another value is out of range.
        """
        n = whole_number("n", n, 1)
        if n <= self.batch_size:
            check_draw(n, seed, first, temperature)
            return self._draw(n, seed, first, temperature)
        if n > MAX_IMAGES:
            raise UserError(f"n is {n}; expected at most {MAX_IMAGES} (Sampler.iterate has no such limit)")
        return gather(self.iterate(n, seed, first, temperature), n, self.image_shape)

    def iterate(self, n: int, seed: int = 0, first: int = 0, temperature: float = 1.0) -> Iterator[Images]:
        """The images of `sample` in chunks of at most `batch_size`, in order and in bounded memory.

        Raises:
            UserError: a value is out of range; raised here, not at the first chunk.
        """
        n = whole_number("n", n, 1)
        check_draw(n, seed, first, temperature)
        return (self._draw(stop - start, seed, first + start, temperature) for start, stop in self._chunks(n))

    def latents(self, n: int, seed: int = 0, first: int = 0, temperature: float = 1.0) -> Floats:
        """The z of the images that `sample` gives for the same values: float32 [n, latent_dim].

        Raises:
            UserError: n is not in 1..MAX_IMAGES, or another value is out of range.
        """
        n = whole_number("n", n, 1)
        check_draw(n, seed, first, temperature)
        if n > MAX_IMAGES:
            raise UserError(f"n is {n}; expected at most {MAX_IMAGES}")
        return np.concatenate(
            [
                self._run(["z"], rows(stop - start, seed, first + start, temperature))[0]
                for start, stop in self._chunks(n)
            ]
        )

    def decode(self, z: NDArray[Any]) -> Images:
        """Pixel means of latents: z [n, latent_dim] -> uint8 [n, H, W, C].

        Raises:
            UserError: z has another shape or is not finite; there is no decoder.onnx.
        """
        z = np.asarray(z)
        if z.ndim != 2 or z.shape[1] != self.latent_dim or not len(z) or z.dtype.kind not in "fiu":
            raise UserError(f"z is {z.dtype} {list(z.shape)}; expected numbers [n >= 1, {self.latent_dim}]")
        z = z.astype(np.float32)
        if not np.isfinite(z).all():
            raise UserError("z holds a NaN or an infinity; expected finite numbers")
        run = self.session(DECODER).run
        decoded = (to_pixels(run(["x"], {"z": z[start:stop]})[0]) for start, stop in self._chunks(len(z)))
        return gather(decoded, len(z), self.image_shape)

    def encode(self, images: Images) -> tuple[Floats, Floats]:
        """q(z|x) of uint8 [n, H, W, C]: mu and logvar (the log of the variance), each float32 [n, latent_dim].

        Raises:
            UserError: the images have another type or shape; there is no encoder.onnx.
        """
        mu, logvar = self._read(ENCODER, ["mu", "logvar"], images, self.batch_size)
        return mu, logvar

    def score(self, images: Images) -> tuple[Floats, Floats]:
        """How strange the model finds uint8 [n, H, W, C]: score float32 [n] and error float32 [n, H, W], in nats.

        A higher score is stranger: it is minus the ELBO, and the error map is each pixel's part in minus
        log p(x|z). `strangeness` says where a score lies among those of the validation images.

        Raises:
            UserError: the images have another type or shape; there is no scorer.onnx.
        """
        together = max(1, self.batch_size // self.score_scale.samples)  # each image is decoded that many times
        score, error = self._read(SCORER, ["score", "error"], images, together)
        return score, error

    def strangeness(self, score: NDArray[Any] | float) -> NDArray[np.float64]:
        """The share of the validation images that are less strange than `score`, in [0, 1], shaped as it is.

        Raises:
            UserError: there is no scorer.onnx.
        """
        return self.score_scale.strangeness(score)

    @functools.cached_property
    def score_scale(self) -> ScoreScale:
        """The quantiles of the validation images' scores.

        Raises:
            UserError: there is no scorer.onnx, or it does not carry them.
        """
        properties = self.session(SCORER).get_modelmeta().custom_metadata_map
        return ScoreScale.from_strings(properties, str(self._path / SCORER))

    def _read(self, name: str, outputs: list[str], images: Images, together: int) -> list[Floats]:
        """Run a graph over images, so many together; its outputs are joined."""
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape or not len(images):
            expected = ["n >= 1", *self.image_shape]
            raise UserError(f"images are {images.dtype} {list(images.shape)}; expected uint8 {expected}")
        run = self.session(name).run
        parts = [run(outputs, {"images": images[at : at + together]}) for at in range(0, len(images), together)]
        return [np.concatenate(output) for output in zip(*parts, strict=True)]

    def _draw(self, n: int, seed: int, first: int, temperature: float) -> Images:
        images: Images = self._run(["images"], rows(n, seed, first, temperature))[0]
        return images

    def _chunks(self, n: int) -> Iterator[tuple[int, int]]:
        return ((start, min(start + self.batch_size, n)) for start in range(0, n, self.batch_size))

    def _open(self, name: str) -> "InferenceSession":
        file = variant_file(name, self._variant)
        path = self._path if self._manifest is None else self._path / file
        content = read_file(path) if self._manifest is None else self._manifest.read(file)
        session = open_session(content, self._device, self._threads, str(path))
        metadata = read_metadata(session, str(path))
        if metadata.graph != name.partition(".")[0]:
            raise UserError(f"{path}: is a {metadata.graph}; expected a {name}, or the export folder that holds one")
        if file != name and metadata.variant != self._variant:
            raise UserError(f"{path}: computes in {metadata.variant or 'float32'}; expected {self._variant}")
        return session
