"""ONNX files to pixels with numpy and onnxruntime, and pillow for pictures: all of the package that an app loads."""

from pipeline.runtime.sampler import Sampler
from pipeline.runtime.session import open_session

__all__ = ["Sampler", "open_session"]
