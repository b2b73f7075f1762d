"""manifest.json of an export folder: what the runtime verifies before it opens a file."""

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline.runtime.describe import describe
from pipeline.runtime.metadata import FORMAT, Metadata
from pipeline.runtime.session import open_session


def build_manifest(files: Mapping[str, bytes], metadata: Metadata) -> dict[str, Any]:
    """The manifest of finished files: sha256, size, inputs and outputs of each, and the metadata that they share."""
    shared = {key: value for key, value in metadata.to_strings().items() if key not in ("format", "graph")}
    return {
        "format": FORMAT,
        "metadata": shared,
        "files": {name: _entry(name, content) for name, content in files.items()},
    }


def _entry(name: str, content: bytes) -> dict[str, Any]:
    described = describe(open_session(content, "cpu", name=name))
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **described}
