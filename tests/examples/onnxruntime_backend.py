"""Stands in for Triton's onnxruntime backend, which comes with its container alone, in Triton's own server.

The server reads the configurations, joins the requests, warms the models up and answers over HTTP; this runs the file.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, arguments):
        model = Path(arguments["model_repository"], arguments["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def execute(self, requests):
        outputs = [output.name for output in self.session.get_outputs()]
        inputs = [self._read(request) for request in requests]
        joined = {name: np.concatenate([rows[name] for rows in inputs]) for name in inputs[0]}
        arrays = dict(zip(outputs, self.session.run(outputs, joined), strict=True))
        responses, first = [], 0
        for rows in inputs:
            end = first + len(next(iter(rows.values())))
            tensors = [triton.Tensor(name, array[first:end]) for name, array in arrays.items()]
            responses.append(triton.InferenceResponse(tensors))
            first = end
        return responses

    def _read(self, request):
        names = [value.name for value in self.session.get_inputs()]
        return {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in names}
