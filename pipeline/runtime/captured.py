"""A session on CUDA whose runs are replays of captured CUDA graphs: one launch in place of one for each node.

A captured graph reads and writes fixed memory of fixed shapes, so there is one for each size bucket, and rows are
filled up to the bucket's size; each row stands alone, so what fills it up changes nothing.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.describe import describe

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, OrtValue, RunOptions

Array = NDArray[Any]


def bucket_size(rows: int) -> int:
    """The bucket that serves so many rows: the next power of two."""
    return 1 << (rows - 1).bit_length()


def fill_up(array: Array, size: int) -> Array:
    """[n, ...] -> [size, ...], contiguous: the last row is repeated."""
    filled = np.empty((size, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    filled[len(array) :] = array[-1:]
    return filled


@dataclass(frozen=True)
class _Bucket:
    inputs: "dict[str, OrtValue]"
    outputs: "dict[str, OrtValue]"
    binding: "IOBinding"
    options: "RunOptions"


class CapturedGraph:
    """`run` as a session has it, from any thread.

    Neither a binding nor a capture may be shared by threads, onnxruntime keeps captures by thread, and while one is
    made no other thread may call CUDA: so one thread of our own does all runs of all graphs, one after the other.
    """

    _THREAD = ThreadPoolExecutor(1, "cuda-graph")

    def __init__(self, session: "InferenceSession", device: str = "cuda") -> None:
        """Take a session that was opened with `enable_cuda_graph`, and that nothing else runs."""
        self._session, self._device = session, device
        described = describe(session)
        self._inputs, self._outputs = ({t["name"]: t for t in described[side]} for side in ("inputs", "outputs"))
        self._buckets: dict[int, _Bucket] = {}

    def run(self, outputs: Sequence[str], rows: Mapping[str, Array]) -> list[Array]:
        """The named outputs of n rows, each [n, ...]."""
        return self._THREAD.submit(self._replay, outputs, rows).result()

    def _replay(self, outputs: Sequence[str], rows: Mapping[str, Array]) -> list[Array]:
        count = len(next(iter(rows.values())))
        size = bucket_size(count)
        if size not in self._buckets:
            self._buckets[size] = self._bind(size)
        bucket = self._buckets[size]
        for name, value in bucket.inputs.items():
            value.update_inplace(fill_up(rows[name], size))
        self._session.run_with_iobinding(bucket.binding, bucket.options)
        # On the CPU `numpy` may be a view of what the next run overwrites.
        return [np.array(bucket.outputs[name].numpy()[:count]) for name in outputs]

    def _bind(self, size: int) -> _Bucket:
        from onnxruntime import OrtValue, RunOptions

        binding, options = self._session.io_binding(), RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        inputs = {
            name: OrtValue.ortvalue_from_numpy(np.zeros(_shape(tensor, size), tensor["dtype"]), self._device, 0)
            for name, tensor in self._inputs.items()
        }
        outputs = {
            name: OrtValue.ortvalue_from_shape_and_type(
                _shape(tensor, size), np.dtype(tensor["dtype"]).type, self._device, 0
            )
            for name, tensor in self._outputs.items()
        }
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return _Bucket(inputs, outputs, binding, options)


def _shape(tensor: dict[str, Any], size: int) -> list[int]:
    return [size, *tensor["shape"][1:]]
