"""Seeds in, pixels out: an export folder or a lone sampler.onnx as a Python object."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.bound import BoundImage
from pipeline.runtime.draws import check_draw, rows, whole_number
from pipeline.runtime.export_files import DECODER, ENCODER, SAMPLER, SCORER, ExportFiles, Runner
from pipeline.runtime.labels import LABEL, Label, label_index, read_labels
from pipeline.runtime.pixels import Images, gather, to_pixels
from pipeline.runtime.providers import Device
from pipeline.runtime.scores import ScoreScale, images_together
from pipeline.runtime.session import read_metadata, served_device
from pipeline.runtime.together import rows_together
from pipeline.runtime.variants import Variant

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["DECODER", "ENCODER", "MAX_IMAGES", "SAMPLER", "SCORER", "Sampler"]

MAX_IMAGES = 1_000_000  # of one array; it has to fit in memory

Floats = NDArray[np.float32]


class Sampler:
    """Draws images from a trained model, and maps between images and latents where the folder has those files.

    Image i of a seed is a function of (seed, i, temperature) alone, and of the label where the model takes one:
    batches, chunks and other callers do not change it. One instance serves many threads.

    Attributes:
        metadata: what the file says of itself and where it came from.
        latent_dim: size of z.
        image_shape: (height, width, channels) of one image.
        device: that serves it: cpu, cuda or tensorrt.
        labels: names of the classes of a conditional model, which then wants a `label`, by name or index, for every
            image that it draws or reads; none of any other model.
    """

    def __init__(
        self,
        path: Path | str = "models/export",
        device: Device = "auto",
        *,
        threads: int | None = None,
        batch_size: int | None = None,
        variant: Variant | None = None,
        spin_us: int | None = None,
    ) -> None:
        """Open the sampler; decoder, encoder and scorer are opened when first used.

        Args:
            path: a folder with manifest.json, whose files are verified by their sha256, or one sampler.onnx, or
                `models:/NAME@ALIAS` in MLflow's registry.
            device: auto, cpu, cuda or tensorrt, as in `open_session`.
            threads: CPU threads for one call; None lets onnxruntime take the machine's cores.
            batch_size: how many images are computed at once; bounds the memory, does not change the images. None takes
                512, or fewer of images of more than 4,096 values.
            variant: int8 or fp16 opens sampler and decoder in that arithmetic, where the folder holds them;
                a lone file is what it is.
            spin_us: how long a CPU thread waits awake for more work, in microseconds, as in `open_session`; less leaves
                more to others.

        Raises:
            UserError: a file is missing, damaged or not one of ours; the device cannot be served; the folder
                lacks the variant.
        """
        asked = None if batch_size is None else whole_number("batch_size", batch_size, 1)
        self._export = ExportFiles(path, device, threads, variant, spin_us)
        session, source = self.session(SAMPLER), str(self._export.where(SAMPLER))
        self.metadata = read_metadata(session, source)
        channels, height, width = self.metadata.image_shape
        self.batch_size = asked or rows_together(self.metadata.image_shape)
        self.latent_dim = self.metadata.latent_dim
        self.image_shape = (height, width, channels)
        self.labels = read_labels(session, source)
        self._run = self._export.runner(SAMPLER)
        self.device = served_device(session)
        self._one = BoundImage(session, self.image_shape, bool(self.labels)) if self.device == "cpu" else None
        if self.device == "tensorrt":
            self._build_engines()

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the ONNX files at hand: those that the manifest lists, or sampler.onnx alone."""
        return self._export.names

    def session(self, name: str) -> "InferenceSession":
        """The session of one of `files`, opened and verified when it is first asked for; its `run` is thread-safe.

        Raises:
            UserError: there is no such file, it is damaged, or it is another graph.
        """
        return self._export.session(name)

    def runner(self, name: str) -> Runner:
        """`run` of one of `files`, from any thread, as fast as the device allows: on CUDA its runs are captured.

        Raises:
            UserError: as `session`.
        """
        return self._export.runner(name)

    def sample(
        self, n: int, seed: int = 0, first: int = 0, temperature: float = 1.0, label: Label | None = None
    ) -> Images:
        """Images number `first` to `first + n - 1` of `seed`: uint8 [n, H, W, C].

        `temperature` scales the prior's standard deviation: 0 gives the image of its centre (z = 0, or in a mixture the
        mean of the component that was drawn), 1 the model's own samples.

        Raises:
            UserError: n is not in 1..MAX_IMAGES, another value is out of range, or the label is not one of `labels`.
        """
        n = whole_number("n", n, 1)
        if n <= self.batch_size:
            images: Images = self._draw("images", n, *self._check(n, seed, first, temperature, label))
            return images
        if n > MAX_IMAGES:
            raise UserError(f"n is {n}; expected at most {MAX_IMAGES} (Sampler.iterate has no such limit)")
        return gather(self.iterate(n, seed, first, temperature, label), n, self.image_shape)

    def iterate(
        self, n: int, seed: int = 0, first: int = 0, temperature: float = 1.0, label: Label | None = None
    ) -> Iterator[Images]:
        """The images of `sample` in chunks of at most `batch_size`, in order and in bounded memory.

        Raises:
            UserError: a value is out of range; raised here, not at the first chunk.
        """
        n = whole_number("n", n, 1)
        asked = self._check(n, seed, first, temperature, label)
        return self._drawn("images", n, *asked)

    def latents(
        self, n: int, seed: int = 0, first: int = 0, temperature: float = 1.0, label: Label | None = None
    ) -> Floats:
        """The z of the images that `sample` gives for the same values: float32 [n, latent_dim].

        Raises:
            UserError: n is not in 1..MAX_IMAGES, or another value is out of range.
        """
        n = whole_number("n", n, 1)
        if n > MAX_IMAGES:
            raise UserError(f"n is {n}; expected at most {MAX_IMAGES}")
        asked = self._check(n, seed, first, temperature, label)
        return np.concatenate(list(self._drawn("z", n, *asked)))

    def decode(self, z: NDArray[Any], label: Label | None = None) -> Images:
        """Pixel means of latents: z [n, latent_dim] -> uint8 [n, H, W, C].

        Raises:
            UserError: z has another shape or is not finite; there is no decoder.onnx.
        """
        z = _as_array(z, "z")
        if z.ndim != 2 or z.shape[1] != self.latent_dim or not len(z) or z.dtype.kind not in "fiu":
            raise UserError(f"z is {z.dtype} {list(z.shape)}; expected numbers [n >= 1, {self.latent_dim}]")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes an infinity
            z = z.astype(np.float32)
        if not np.isfinite(z).all():
            raise UserError("z holds a NaN or an infinity; expected finite numbers")
        parts = self._map(DECODER, ["x"], "z", z, label, self.batch_size)
        return gather((to_pixels(x) for (x,) in parts), len(z), self.image_shape)

    def encode(self, images: Images, label: Label | None = None) -> tuple[Floats, Floats]:
        """q(z|x) of uint8 [n, H, W, C]: mu and logvar (the log of the variance), each float32 [n, latent_dim].

        Raises:
            UserError: the images have another type or shape; there is no encoder.onnx.
        """
        mu, logvar = self._read(ENCODER, ["mu", "logvar"], images, label, self.batch_size)
        return mu, logvar

    def score(self, images: Images, label: Label | None = None) -> tuple[Floats, Floats]:
        """How strange the model finds uint8 [n, H, W, C]: score float32 [n] and error float32 [n, H, W], in nats.

        A higher score is stranger: it is minus the ELBO, and the error map is each pixel's part in minus
        log p(x|z). `strangeness` says where a score lies among those of the validation images.

        Raises:
            UserError: the images have another type or shape; there is no scorer.onnx.
        """
        together = images_together(self.batch_size, self.score_scale.samples)
        score, error = self._read(SCORER, ["score", "error"], images, label, together)
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
        return ScoreScale.from_strings(properties, str(self._export.where(SCORER)))

    def _read(self, name: str, outputs: list[str], images: Images, label: Label | None, together: int) -> list[Floats]:
        """Run a graph over images, so many together; its outputs are joined."""
        images = _as_array(images, "images")
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape or not len(images):
            expected = ["n >= 1", *self.image_shape]
            raise UserError(f"images are {images.dtype} {list(images.shape)}; expected uint8 {expected}")
        parts = self._map(name, outputs, "images", images, label, together)
        return [np.concatenate(output) for output in zip(*parts, strict=True)]

    def _map(
        self, name: str, outputs: list[str], input_: str, values: NDArray[Any], label: Label | None, together: int
    ) -> Iterator[list[Floats]]:
        """A graph's outputs for `values`, part by part."""
        index = label_index(label, read_labels(self.session(name), str(self._export.where(name))), name)
        run = self.runner(name)
        for start in range(0, len(values), together):
            part = {input_: values[start : start + together]}
            if index is not None:
                part[LABEL] = np.full(len(part[input_]), index, np.int64)
            yield run(outputs, part)

    def _check(
        self, n: int, seed: int, first: int, temperature: float, label: Label | None
    ) -> tuple[int, int, float, int | None]:
        """What was asked for, once it is known that it can be drawn."""
        return *check_draw(n, seed, first, temperature), label_index(label, self.labels, SAMPLER)

    def _draw(self, output: str, n: int, seed: int, first: int, temperature: float, label: int | None) -> Any:
        if n == 1 and output == "images" and self._one:
            image = self._one.draw(seed, first, temperature, label)
            if image is not None:
                return image
        return self._run([output], rows(n, seed, first, temperature, label))[0]

    def _drawn(
        self, output: str, n: int, seed: int, first: int, temperature: float, label: int | None
    ) -> Iterator[Any]:
        for start in range(0, n, self.batch_size):
            yield self._draw(output, min(self.batch_size, n - start), seed, first + start, temperature, label)

    def _build_engines(self) -> None:
        """Let TensorRT build, or load, engines for every size of batch: they serve the sizes between those seen."""
        label = 0 if self.labels else None
        for n in (1, self.batch_size):
            self._draw("images", n, 0, 0, 1.0, label)


def _as_array(values: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:
        raise UserError(f"{name} is ragged; expected lists of equal length") from None
