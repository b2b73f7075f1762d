"""manifest.json: which files an export folder holds, and the sha256 that each must have."""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.runtime.metadata import FORMAT

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """An export folder as its manifest describes it."""

    folder: Path
    sha256: dict[str, str]
    """File name -> sha256 of its bytes."""

    def read(self, name: str) -> bytes:
        """The bytes of a file, verified: what is hashed here is what is opened.

        Raises:
            UserError: the manifest does not list the file, it is missing, or its bytes are not those listed.
        """
        path = self.folder / name
        if name not in self.sha256:
            raise UserError(f"{self.folder / MANIFEST}: lists no {name}; expected one of {', '.join(self.sha256)}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {MANIFEST} lists it") from None
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256[name]:
            raise UserError(f"{path}: sha256 is {found[:12]}...; {MANIFEST} expects {self.sha256[name][:12]}...")
        return content


def read_manifest(folder: Path | str) -> Manifest:
    """Read and check a folder's manifest.

    Raises:
        UserError: it is missing or malformed, is of another format, or names a file outside its folder.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: format is {content.get('format')!r}; expected {FORMAT!r}")
    files = content.get("files")
    if not isinstance(files, dict) or not files:
        raise UserError(f"{path}: files is {type(files).__name__}; expected an object with an entry for each file")
    return Manifest(folder, {name: _sha256(entry, name, path) for name, entry in files.items()})


def _sha256(entry: Any, name: str, path: Path) -> str:
    # Both kinds of separator are refused on every system: a manifest travels.
    if name in ("", ".", "..") or PurePosixPath(name).name != name or PureWindowsPath(name).name != name:
        raise UserError(f"{path}: names the file {name!r}; expected a plain name inside its folder")
    sha256 = entry.get("sha256") if isinstance(entry, dict) else None
    if not isinstance(sha256, str) or len(sha256) != 64:
        raise UserError(f"{path}: files.{name}.sha256 is {sha256!r}; expected 64 hexadecimal digits")
    return sha256
