"""ONNX files to pixels with numpy and onnxruntime alone: this is all that an app installs."""

from pipeline.runtime.sampler import Sampler
from pipeline.runtime.session import open_session

__all__ = ["Sampler", "open_session"]
