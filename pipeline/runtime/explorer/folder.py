"""The explorer as a static folder: any web server of files shows it, and the browser runs the model."""

import json
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import atomic_directory, expect_new_folder, read_json, write_files
from pipeline.runtime.explorer import IN_FOLDER, read_page_file
from pipeline.runtime.manifest import MANIFEST, read_manifest
from pipeline.runtime.sampler import DECODER, ENCODER, SAMPLER, SCORER

GRAPHS = (SAMPLER, DECODER, ENCODER, SCORER)

RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Of onnxruntime-web's npm package, in dist/."""

_BACKEND = 'export { describe, run } from "./onnx.js";\n'
_SERVED = """\
Any web server shows this page; opened as a file (file://) it does not start, since browsers load no scripts that way.

    python -m http.server --bind 127.0.0.1

"""
_WHOLE = "Everything that it needs lies in this folder, and nothing is fetched from another host.\n"
_LACKS = f"""\
It lacks the library that runs the model in the browser. Of the npm package onnxruntime-web, put these two files of
dist/ into this folder: {" and ".join(RUNTIME)}
"""


def write_explorer(folder: Path, model: Path, runtime: Path | None = None) -> None:
    """Write the page, the files of an export folder (verified), and onnxruntime-web where `runtime` names its dist/.

    Without it the page says which files it lacks.

    Raises:
        UserError: `folder` holds something; a file of the model or of the runtime is missing or damaged.
    """
    expect_new_folder(folder)
    manifest = read_manifest(model)
    graphs = [name for name in GRAPHS if name in manifest.sha256]
    contents = {name: read_page_file(name) for name in IN_FOLDER}
    contents |= {"backend.js": _BACKEND.encode(), "README.txt": (_SERVED + (_WHOLE if runtime else _LACKS)).encode()}
    contents |= {name: manifest.read(name) for name in graphs}
    contents |= {MANIFEST: _manifest_of(model, graphs)}
    contents |= {name: _read_runtime(runtime / name) for name in RUNTIME} if runtime else {}
    with atomic_directory(folder) as beside:
        write_files(beside, contents)


def _manifest_of(model: Path, graphs: list[str]) -> bytes:
    """The model's manifest, with the files that the page runs alone."""
    content = read_json(model / MANIFEST)
    files = {name: content["files"][name] for name in graphs}
    return json.dumps({**content, "files": files, "other_files": {}}, indent=2).encode()


def _read_runtime(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected it in onnxruntime-web's dist/") from None
