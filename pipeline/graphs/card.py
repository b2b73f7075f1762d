"""card.md: what the exported files are, for the person who is handed them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import shown
from pipeline.graphs.versions import IR_VERSION, OLDEST_ONNXRUNTIME, OPSET
from pipeline.runtime.describe import as_text
from pipeline.runtime.metadata import Metadata

CARD = "card.md"

_PRIORS = {
    "standard": "a standard normal prior",
    "mixture": "a learned mixture of Gaussians as prior",
    "flow": "a flow as prior (RealNVP, arXiv 1605.08803: noise that coupling layers move)",
    "per_class": "a Gaussian prior for each class",
    "vamp": "a VampPrior (Tomczak and Welling, arXiv 1705.07120; its pseudo-inputs' posteriors stand in the sampler)",
}

_POSTERIORS = {
    "diagonal": "a diagonal Gaussian as posterior",
    "iaf": "a Gaussian that an inverse autoregressive flow moves as posterior (arXiv 1606.04934)",
    "ladder": "a ladder of Gaussian groups as posterior",
    "coupling": "a Gaussian that coupling layers move as posterior (RealNVP, arXiv 1605.08803)",
}

_PURPOSES = {
    "decoder.onnx": "latents to pixel means in [0, 1]",
    "encoder.onnx": "images to the mean and log-variance of their latents",
    "sampler.onnx": "seeds to images; the noise generator is inside the graph",
    "scorer.onnx": "images to how strange the model finds them, as a whole and pixel by pixel",
    "sampler.int8.onnx": "the sampler in int8, for the CPU",
    "decoder.int8.onnx": "the decoder in int8, for the CPU",
    "sampler.fp16.onnx": "the sampler in fp16, for GPUs",
    "decoder.fp16.onnx": "the decoder in fp16, for GPUs",
}

_USE = """\
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("sampler.onnx", providers=["CPUExecutionProvider"])
n = 16
rows = {{"seed": np.full(n, 7), "index": np.arange(n), "temperature": np.ones(n, np.float32){label}}}
images, z = session.run(None, rows)"""

_LABEL = ', "label": np.zeros(n, np.int64)'

_CLASSES = """\
The model is conditional: every graph takes the class of each row besides, `label` int64. A score is that of an image
*of the class it is told*, minus the ELBO of log p(x|y): a wrong class makes an image strange. A label outside the table
is no class; the runtime refuses it, a graph by itself may not."""

_LIMITS = """\
- The images are pixel means E[x|z], not draws from p(x|z): they are smoother than the data.
- The model knows only images like those that it was trained on, at this size. Another image is encoded
  all the same, without a warning.
- Image `index` of a `seed` is the same in every batch and runtime up to one grey level, where rounding falls
  the other way. Tests hold that on CPUs, in Python, Node and the browser, and for dense and
  convolutional models on CUDA where there is a GPU; with TensorRT it was not tried.
- The noise generator is made for reproducible pictures, not for secrets."""

_NO_PRIOR = """
- Trained as a plain auto-encoder: nothing pulled the latents towards the standard normal that the
  sampler draws from, so its samples need not look like data. Reconstructions do."""


_SCORES = """\
`score` is {meaning}, in nats: higher is stranger. `error` is each pixel's part in minus log p(x|z), summed over
channels. {samples}Each image is scored on its own.
{pixels}
The scores of the validation images, which the file carries as `score_quantiles`, turn a score into "stranger than 99 %
of images like those that the model was trained on":

{quantiles}

What such a score cannot do: it is no general test of whether an image belongs to the data. A model of images may give
simple pictures that it never saw (a blank page, smooth or dark ones) a higher likelihood than its own training data
(Nalisnick et al. 2019, arXiv 1810.09136). A high score is a reason to look; a low one is no proof that all is well.
Measure on strange images of your own kind before you rely on it, and look at the error map rather than at the score for
small defects: a sum over all pixels drowns them."""

_X_AS_PROBABILITY = """
Grey values in [0, 1] are read as probabilities of a white pixel, however training drew its binary pixels. The
reconstruction term is then its expectation over all such draws, given z, but z comes from the grey image, so that
scores lie near the ELBO of binary images, not on it.
"""

_DENSITY = """
log p(x|z) is a density in units of the pixel range, so a score may be negative, and does not compare with that of a
model with another likelihood.
"""

_PIXELS = {"bernoulli": _X_AS_PROBABILITY, "continuous_bernoulli": _DENSITY, "gaussian": _DENSITY}


def write_card(
    metadata: Metadata,
    manifest: Mapping[str, Any],
    parity: Mapping[str, float],
    test_metrics: Mapping[str, float],
    extra_sections: Mapping[str, str],
) -> str:
    """The card as Markdown; `extra_sections` (title -> Markdown) follow that on scores. An empty one is left out."""
    labels: list[str] = manifest.get("labels", [])
    height, width, channels = *metadata.image_shape[1:], metadata.image_shape[0]
    use, plain = _USE.format(label=_LABEL if labels else ""), metadata.objective == "autoencoder"
    sections = {
        "Use": f"```python\n{use}  # uint8 [16, {height}, {width}, {channels}], channels last\n```\n\n"
        f"Any onnxruntime from {OLDEST_ONNXRUNTIME} on opens the files (opset {OPSET}, IR version {IR_VERSION}), "
        "in any language; each is whole in itself and takes any batch size n.",
        "Files": _files(manifest["files"])
        + "\n\nThe folder `triton/` holds the float32 ones once more, as a model repository for NVIDIA's Triton.",
        "Classes": _classes(labels),
        "Scores": _scores(metadata, manifest["files"].get("scorer.onnx")),
        **extra_sections,
        "Origin": _table(["", ""], [[name, f"`{value}`"] for name, value in manifest["metadata"].items()]),
        "Measured on the test images": _measurements(test_metrics),
        "Agreement with the trained model": "Largest differences between onnxruntime and torch at batch sizes "
        "1 to 64, on test images and random latents; grey levels are of 255, relative errors those of values above "
        "one nat.\n\n" + _measurements(parity),
        "Limits": _LIMITS + (_NO_PRIOR if plain and metadata.draws_standard_normal else ""),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"# {_title(metadata)}\n\n{_summary(metadata)}\n\n{body}\n"


def _classes(labels: Sequence[str]) -> str:
    """Which value of `label` is which class."""
    if not labels:
        return ""
    rows = [[str(place), shown(name)] for place, name in enumerate(labels)]
    return f"{_CLASSES}\n\n" + _table(["label", "class"], rows)


def _title(metadata: Metadata) -> str:
    kind = "Auto-encoder" if metadata.objective == "autoencoder" else "Variational auto-encoder"
    channels, height, width = metadata.image_shape
    return f"{kind} of {height}x{width} {'grey' if channels == 1 else 'colour'} images"


def _summary(metadata: Metadata) -> str:
    drawn = ""
    if metadata.aggregate_components:
        each = " for each class" if metadata.prior == "per_class" else ""
        drawn = (
            f" The sampler draws z from a mixture of {metadata.aggregate_components} Gaussians{each} that was fitted "
            "to the training codes after training, not from the prior; no likelihood knows of it."
        )
    posterior = f"{_POSTERIORS[metadata.posterior]}, " if metadata.posterior else ""
    return (
        f"{metadata.latent_dim} latents under {_PRIORS[metadata.prior]}, {posterior}{metadata.likelihood} likelihood, "
        f"trained for the objective `{metadata.objective}` (Kingma and Welling, arXiv 1312.6114).{drawn}"
    )


def _files(entries: Mapping[str, Any]) -> str:
    rows = [
        [
            f"`{name}`",
            _PURPOSES[name],
            as_text(entry["inputs"]),
            as_text(entry["outputs"]),
            f"{entry['bytes']:,}",
        ]
        for name, entry in entries.items()
    ]
    return _table(["file", "what it does", "inputs", "outputs", "bytes"], rows)


def _scores(metadata: Metadata, scorer: Mapping[str, Any] | None) -> str:
    if scorer is None:
        return ""
    scores = scorer["scores"]
    plain = metadata.objective == "autoencoder"
    quantiles = zip(scores["quantiles"]["levels"], scores["quantiles"]["scores"], strict=True)
    rows = [[f"{100 * level:g} %", f"{score:.1f}"] for level, score in quantiles]
    return _SCORES.format(
        meaning="minus recon at z = mu, without a KL," if plain else "minus the ELBO",
        samples="" if plain else f"Both are means over {scores['samples']} samples of z whose noise is fixed. ",
        pixels=_PIXELS.get(metadata.likelihood, ""),
        quantiles=_table(["stranger than", "score"], rows),
    )


def _measurements(values: Mapping[str, float]) -> str:
    return _table(["", ""], [[f"`{name}`", f"{value:.4g}"] for name, value in values.items()]) if values else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
