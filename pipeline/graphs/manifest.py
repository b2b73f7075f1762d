"""manifest.json of an export folder: what the runtime verifies before it opens a file."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.runtime.describe import describe
from pipeline.runtime.metadata import FORMAT, OF_LATENTS
from pipeline.runtime.sampler import SCORER
from pipeline.runtime.scores import ScoreScale
from pipeline.runtime.session import open_session, read_metadata


def build_manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest of finished files: sha256, size, inputs and outputs of each, and the metadata that they share.

    `latent_kl`, the KL of each latent dimension in nats, and `latent_mean` and `latent_deviation` of what the sampler
    draws are lists or null, `labels` the classes of a conditional model. The scorer's entry also has `scores`: how many
    samples a score takes, and the quantiles of the validation scores.
    """
    name, content = next(iter(files.items()))
    session = open_session(content, "cpu", name=name)
    metadata = read_metadata(session, name)
    labels = session.get_modelmeta().custom_metadata_map.get("labels")
    own = ("format", "graph", *OF_LATENTS)
    return {
        "format": FORMAT,
        "metadata": {key: value for key, value in metadata.to_strings().items() if key not in own},
        **{name: getattr(metadata, name) for name in OF_LATENTS},
        **({"labels": json.loads(labels)} if labels else {}),
        "files": {name: _entry(name, content) for name, content in files.items()},
    }


def list_files(files: Mapping[str, bytes]) -> dict[str, Any]:
    """sha256 and size of each file, for the manifest's `other_files`: what the folder holds besides, by its path."""
    return {path: _sum_and_size(content) for path, content in files.items()}


def _entry(name: str, content: bytes) -> dict[str, Any]:
    session = open_session(content, "cpu", name=name)
    entry = {**_sum_and_size(content), **describe(session)}
    if name == SCORER:
        entry["scores"] = ScoreScale.from_strings(session.get_modelmeta().custom_metadata_map, name).to_json()
    return entry


def _sum_and_size(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
