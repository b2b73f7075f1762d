"""manifest.json: which files an export folder holds, and the sha256 that each must have."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.runtime.metadata import FORMAT
from pipeline.runtime.variants import variant_of

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """An export folder as its manifest describes it."""

    folder: Path
    sha256: dict[str, str]
    """ONNX file -> sha256 of its bytes."""
    others: dict[str, str]
    """The same of the files that a session has no use for, by their paths in the folder, with `/` on every system."""
    variants: dict[str, str] = field(default_factory=dict)
    """int8, fp16 -> what the export found of it: what it gains and loses, or why it is missing."""

    def read(self, name: str) -> bytes:
        """The bytes of a file, verified: what is hashed here is what is opened.

        Raises:
            UserError: the manifest does not list the file, it is missing, or its bytes are not those listed.
        """
        path, expected = self.folder / name, {**self.others, **self.sha256}.get(name)
        if expected is None and (variant := variant_of(name)):
            why = self.variants.get(variant, "an earlier export made none")
            raise UserError(f"{self.folder / MANIFEST}: lists no {name}, no {variant} copy: {why}")
        if expected is None:
            raise UserError(f"{self.folder / MANIFEST}: lists no {name}; expected one of {', '.join(self.sha256)}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {MANIFEST} lists it") from None
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise UserError(f"{path}: sha256 is {found[:12]}...; {MANIFEST} expects {expected[:12]}...")
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
    others = content.get("other_files", {})
    if not isinstance(others, dict):
        raise UserError(
            f"{path}: other_files is {type(others).__name__}; expected an object with an entry for each file"
        )
    variants = content.get("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(text, str) for text in variants.values()):
        raise UserError(f"{path}: variants is {str(variants)[:40]}; expected an object of texts")
    return Manifest(
        folder,
        {name: _sha256(entry, "files", name, [name], path) for name, entry in files.items()},
        {name: _sha256(entry, "other_files", name, name.split("/"), path) for name, entry in others.items()},
        variants,
    )


def _sha256(entry: Any, field: str, name: str, parts: list[str], path: Path) -> str:
    if not all(map(_is_plain, parts)):
        raise UserError(f"{path}: names the file {name!r}; expected a plain name inside its folder")
    sha256 = entry.get("sha256") if isinstance(entry, dict) else None
    if not isinstance(sha256, str) or len(sha256) != 64:
        raise UserError(f"{path}: {field}.{name}.sha256 is {sha256!r}; expected 64 hexadecimal digits")
    return sha256


def _is_plain(name: str) -> bool:
    """Both kinds of separator are refused on every system, since a manifest travels; so is what no terminal shows."""
    inside = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return inside and name.isprintable() and name not in ("", ".", "..")
