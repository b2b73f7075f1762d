"""Runs ONNX files, each given by three arguments: MODEL.onnx INPUTS.npz OUTPUTS.npz; prints onnxruntime's version."""

import sys

import numpy as np
import onnxruntime

print(onnxruntime.__version__)
arguments = sys.argv[1:]
while arguments:
    model, inputs, outputs, *arguments = arguments
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with np.load(inputs) as rows:
        arrays = session.run(names, dict(rows))
    np.savez(outputs, **dict(zip(names, arrays, strict=True)))
