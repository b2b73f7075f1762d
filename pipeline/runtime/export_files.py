"""The files of an export: a folder that is held to its manifest, or one sampler.onnx; opened when first used."""

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.runtime.captured import CapturedGraph
from pipeline.runtime.manifest import read_manifest
from pipeline.runtime.providers import Device
from pipeline.runtime.registry import local_path
from pipeline.runtime.session import open_session, read_file, read_metadata, served_device
from pipeline.runtime.variants import Variant, variant_file

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Runner = Callable[[Sequence[str], Mapping[str, NDArray[Any]]], list[Any]]
"""Names of outputs and named inputs, all of n rows -> the outputs, each [n, ...]."""

SAMPLER = "sampler.onnx"
DECODER = "decoder.onnx"
ENCODER = "encoder.onnx"
SCORER = "scorer.onnx"


class ExportFiles:
    """Opens each file once, whichever thread asks first.

    Attributes:
        path: the folder or the file.
        names: of the ONNX files at hand: those that the manifest lists, or sampler.onnx alone.
    """

    def __init__(
        self,
        path: Path | str,
        device: Device,
        threads: int | None = None,
        variant: Variant | None = None,
        spin_us: int | None = None,
    ) -> None:
        """Read the manifest; `path` may be `models:/NAME@ALIAS` too.

        Raises:
            UserError: the manifest is missing or malformed, or the registry has no such model.
        """
        self.path = local_path(path)
        self._manifest = read_manifest(self.path) if self.path.is_dir() else None
        self._device, self._threads, self._variant, self._spin_us = device, threads, variant, spin_us
        self._opening = threading.Lock()
        self._sessions: dict[str, InferenceSession] = {}
        self._runners: dict[str, Runner] = {}
        self.names = (SAMPLER,) if self._manifest is None else tuple(self._manifest.sha256)

    def where(self, name: str) -> Path:
        """The path of one of `names`, for errors to name."""
        return self.path if self._manifest is None else self.path / name

    def session(self, name: str) -> "InferenceSession":
        """The session of one of `names`, opened and verified when it is first asked for; its `run` is thread-safe.

        Raises:
            UserError: there is no such file, it is damaged, or it is another graph.
        """
        with self._opening:
            return self._session(name)

    def runner(self, name: str) -> Runner:
        """`run` of one of `names`, from any thread; on CUDA its runs are captured, once, whoever asks.

        Raises:
            UserError: as `session`.
        """
        with self._opening:
            if name not in self._runners:
                self._runners[name] = self._runner(name)
            return self._runners[name]

    def _session(self, name: str) -> "InferenceSession":
        if name not in self._sessions:
            self._sessions[name] = self._open(name)
        return self._sessions[name]

    def _runner(self, name: str) -> Runner:
        run: Runner = self._session(name).run
        if served_device(self._session(name)) != "cuda":
            return run
        try:
            return CapturedGraph(self._open(name, capture=True)).run
        except UserError as error:
            warnings.warn(f"runs are not captured as CUDA graphs: {error}", RuntimeWarning, stacklevel=3)
            return run

    def _open(self, name: str, capture: bool = False) -> "InferenceSession":
        file = variant_file(name, self._variant)
        path = self.where(file)
        content = read_file(path) if self._manifest is None else self._manifest.read(file)
        session = open_session(content, self._device, self._threads, str(path), capture=capture, spin_us=self._spin_us)
        metadata = read_metadata(session, str(path))
        if metadata.graph != name.partition(".")[0]:
            raise UserError(f"{path}: is a {metadata.graph}; expected a {name}, or the export folder that holds one")
        if file != name and metadata.variant != self._variant:
            raise UserError(f"{path}: computes in {metadata.variant or 'float32'}; expected {self._variant}")
        return session
