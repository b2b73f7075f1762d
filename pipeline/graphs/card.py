"""card.md: what the exported files are, for the person who is handed them."""

from collections.abc import Mapping
from typing import Any

from pipeline.graphs.versions import IR_VERSION, OLDEST_ONNXRUNTIME, OPSET
from pipeline.runtime.describe import as_text
from pipeline.runtime.metadata import Metadata

_PURPOSES = {
    "decoder.onnx": "latents to pixel means in [0, 1]",
    "encoder.onnx": "images to the mean and log-variance of their latents",
    "sampler.onnx": "seeds to images; the noise generator is inside the graph",
}

_USE = """\
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("sampler.onnx", providers=["CPUExecutionProvider"])
n = 16
rows = {"seed": np.full(n, 7), "index": np.arange(n), "temperature": np.ones(n, np.float32)}
images, z = session.run(None, rows)"""

_LIMITS = """\
- The images are pixel means E[x|z], not draws from p(x|z): they are smoother than the data.
- The model knows only images like those that it was trained on, at this size. Another image is encoded
  all the same, without a warning.
- Image `index` of a `seed` is the same in every batch, runtime and device up to one grey level, where
  rounding falls the other way.
- The noise generator is made for reproducible pictures, not for secrets."""

_NO_PRIOR = """
- Trained as a plain auto-encoder: nothing pulled the latents towards the standard normal that the
  sampler draws from, so its samples need not look like data. Reconstructions do."""


def write_card(
    metadata: Metadata, manifest: Mapping[str, Any], parity: Mapping[str, float], test_metrics: Mapping[str, float]
) -> str:
    """The card as Markdown; a section without contents is left out."""
    height, width, channels = *metadata.image_shape[1:], metadata.image_shape[0]
    sections = {
        "Use": f"```python\n{_USE}  # uint8 [16, {height}, {width}, {channels}], channels last\n```\n\n"
        f"Any onnxruntime from {OLDEST_ONNXRUNTIME} on opens the files (opset {OPSET}, IR version {IR_VERSION}), "
        "in any language; each is whole in itself and takes any batch size n.",
        "Files": _files(manifest["files"]),
        "Origin": _table(["", ""], [[name, f"`{value}`"] for name, value in manifest["metadata"].items()]),
        "Measured on the test images": _measurements(test_metrics),
        "Agreement with the trained model": "Largest differences between onnxruntime and torch at batch sizes "
        "1 to 64, on test images and random latents; grey levels are of 255.\n\n" + _measurements(parity),
        "Limits": _LIMITS + (_NO_PRIOR if metadata.objective == "autoencoder" else ""),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"# {_title(metadata)}\n\n{_summary(metadata)}\n\n{body}\n"


def _title(metadata: Metadata) -> str:
    kind = "Auto-encoder" if metadata.objective == "autoencoder" else "Variational auto-encoder"
    channels, height, width = metadata.image_shape
    return f"{kind} of {height}x{width} {'grey' if channels == 1 else 'colour'} images"


def _summary(metadata: Metadata) -> str:
    return (
        f"{metadata.latent_dim} latents under a {metadata.prior} normal prior, {metadata.likelihood} likelihood, "
        f"trained for the objective `{metadata.objective}` (Kingma and Welling, arXiv 1312.6114)."
    )


def _files(entries: Mapping[str, Any]) -> str:
    rows = [
        [
            f"`{name}`",
            _PURPOSES.get(name, ""),
            as_text(entry["inputs"]),
            as_text(entry["outputs"]),
            f"{entry['bytes']:,}",
        ]
        for name, entry in entries.items()
    ]
    return _table(["file", "what it does", "inputs", "outputs", "bytes"], rows)


def _measurements(values: Mapping[str, float]) -> str:
    return _table(["", ""], [[f"`{name}`", f"{value:.4g}"] for name, value in values.items()]) if values else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
