"""The demo: the sampler of an export alone, small enough to ship with the package.

python -m pipeline.graphs.demo models/export pipeline/runtime/demo
"""

import argparse
import json
from pathlib import Path

from pipeline.errors import UserError, run_stage
from pipeline.files import atomic_directory, write_files
from pipeline.graphs.manifest import build_manifest
from pipeline.runtime.manifest import MANIFEST, read_manifest
from pipeline.runtime.sampler import SAMPLER

MOST_BYTES = 2_000_000  # of the folder; every version of it stays in git


def write_demo(export: Path, folder: Path) -> int:
    """Write the sampler of an export and a manifest that lists it alone; returns how many bytes they have.

    Raises:
        UserError: the export is not whole, is of no commit, or its sampler is too large to ship.
    """
    content = read_manifest(export).read(SAMPLER)
    manifest = build_manifest({SAMPLER: content})
    files = {SAMPLER: content, MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode()}
    size, revision = sum(map(len, files.values())), manifest["metadata"]["git_revision"]
    if size >= MOST_BYTES:
        raise UserError(f"{export}: {SAMPLER} and its manifest have {size:,} bytes; expected fewer than {MOST_BYTES:,}")
    if revision.endswith("-dirty"):
        raise UserError(f"{export}: was trained at {revision}; expected a commit, so that anybody can make it again")
    with atomic_directory(folder, MANIFEST) as beside:
        write_files(beside, files)
    return size


def main() -> None:
    """Write the demo and say where from."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.graphs.demo", description=__doc__)
    parser.add_argument("export", type=Path, help="folder of the export stage")
    parser.add_argument("folder", type=Path, help="folder to write")
    paths = parser.parse_args()
    size = write_demo(paths.export, paths.folder)
    print(f"demo: {SAMPLER} of {paths.export} -> {paths.folder}; {size:,} bytes with {MANIFEST}")


if __name__ == "__main__":
    run_stage(main)
