"""The explorer: one page, over a server or, with onnxruntime-web, over the ONNX files beside it."""

from importlib.resources import files

SHARED = (
    "index.html",
    "style.css",
    "app.js",
    "comparison.js",
    "controls.js",
    "drawing.js",
    "model.js",
    "opened.js",
    "own.js",
    "samples.js",
    "sliders.js",
    "state.js",
    "tasks.js",
    "tiles.js",
)
ON_SERVER = (*SHARED, "backend.js", "http.js", "token.js")
IN_FOLDER = (*SHARED, "onnx.js", "worker.js")  # and a backend.js that names onnx.js


def read_page_file(name: str) -> bytes:
    """The bytes of one of the page's own files."""
    return (files(__name__) / name).read_bytes()
