"""One image at a time, on the CPU: inputs and output stay bound to a session, so that a call writes a few numbers."""

import threading
from typing import TYPE_CHECKING

import numpy as np

from pipeline.runtime.draws import rows
from pipeline.runtime.labels import LABEL
from pipeline.runtime.pixels import Images

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class BoundImage:
    """The one image of a row of sampler.onnx; `session.run` takes a quarter longer, most of it to hand arrays over."""

    def __init__(self, session: "InferenceSession", image_shape: tuple[int, int, int], labelled: bool) -> None:
        """Bind `session`, opened on the CPU, whose images are [n, *image_shape]; `labelled` if it takes a label."""
        from onnxruntime import OrtValue

        self._session, self._binding, self._free = session, session.io_binding(), threading.Lock()
        self._row = rows(1, 0, 0, 0.0, 0 if labelled else None)
        self._image: Images = np.zeros((1, *image_shape), np.uint8)
        # On the CPU an OrtValue made from an array is that array's memory.
        for name, array in self._row.items():
            self._binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
        self._binding.bind_ortvalue_output("images", OrtValue.ortvalue_from_numpy(self._image))

    def draw(self, seed: int, index: int, temperature: float, label: int | None) -> Images | None:
        """Image `index` of `seed`, uint8 [1, H, W, C]; None while another thread draws, for a binding serves one."""
        if not self._free.acquire(blocking=False):
            return None
        try:
            row = self._row
            row["seed"][0], row["index"][0], row["temperature"][0] = seed, index, temperature
            if label is not None:
                row[LABEL][0] = label
            self._session.run_with_iobinding(self._binding)
            return self._image.copy()
        finally:
            self._free.release()
