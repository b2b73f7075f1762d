"""Make uint8 arrays of a set of images: for train, val and test, and one of those held out.

Reads    what `prepare.source` names; section `prepare` of params.yaml
Writes   the prepared images: an array for each split and for its labels, meta.json (`pipeline/dataset/store.py` says
         what is in them)

    python -m pipeline.prepare data/prepared
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.dataset.chunks import Chunk, Skipped, Source
from pipeline.dataset.pixels import Conversion
from pipeline.dataset.sources import open_source
from pipeline.dataset.splits import SplitDraw, held_out_classes
from pipeline.dataset.store import HELD_OUT, META_FILE, SPLITS
from pipeline.dataset.writer import dataset_writer
from pipeline.errors import UserError, run_stage, shown
from pipeline.files import atomic_directory, write_json
from pipeline.params import PrepareParams, load_params

SKIPPED_SHOWN = 10


def prepare(source: Source, draw: SplitDraw, folder: Path, train_images: int | None = None) -> dict[str, Any]:
    """Write the source's images into `folder`, chunk by chunk; returns what meta.json is to say of them.

    Of those that fall to the training split, only the first `train_images` are written.

    Raises:
        UserError: no image can be used, or a split is left empty.
    """
    skipped: list[Skipped] = []
    rounding_error = 0.0
    chunks, image_shape = _shape_of_first(source.chunks, skipped)
    with dataset_writer(folder, image_shape, source.classes, held_out=bool(draw.held_out)) as writer:
        for chunk in chunks:
            for split, images, labels in draw.divide(chunk):
                kept = slice(None)
                if split == "train" and train_images is not None:
                    kept = slice(train_images - writer.counts["train"])
                writer.append(split, images[kept], None if labels is None else labels[kept])
            skipped += chunk.skipped
            rounding_error = max(rounding_error, chunk.rounding_error)
        _refuse_empty_splits(writer.counts, draw)
        written = writer.finish()
    return {**written, "rounding_error": rounding_error, "skipped": [vars(item) for item in skipped]}


def open_from_params(params: PrepareParams) -> Source:
    """The source that params name. A relative `prepare.root` starts at the repository that DVC names.

    Queued experiments run in a copy that is deleted afterwards: a set downloaded into it would be lost.
    """
    root = Path(os.environ.get("DVC_ROOT", ".")) / params.root
    conversion = Conversion(params.color, params.image_size)
    return open_source(
        params.source, root=root, path=Path(params.path), conversion=conversion, on_bad_image=params.on_bad_image
    )


def _shape_of_first(chunks: Iterator[Chunk], skipped: list[Skipped]) -> tuple[Iterator[Chunk], tuple[int, ...]]:
    """All chunks from the first that holds an image, and that image's shape."""
    for chunk in chunks:
        if len(chunk.images):
            return itertools.chain([chunk], chunks), chunk.images.shape[1:]
        skipped += chunk.skipped
    raise UserError(
        f"prepare.path: none of the {len(skipped)} files is an image; {shown(skipped[0].file)}: {skipped[0].reason}"
    )


def _refuse_empty_splits(counts: dict[str, int], draw: SplitDraw) -> None:
    fractions = {
        "test": f"prepare.test_fraction is {draw.test_fraction:g}",
        "val": f"prepare.val_fraction is {draw.val_fraction:g}",
        "train": f"prepare.val_fraction + prepare.test_fraction is {draw.val_fraction + draw.test_fraction:g}",
    }
    if counts.get(HELD_OUT) == 0:
        raise UserError(
            f"prepare.held_out_labels: none of the {sum(counts.values()):,} images has such a label; "
            "expected at least one"
        )
    for split in SPLITS:
        if counts[split] == 0:
            raise UserError(
                f"{fractions[split]}, and none of the {sum(counts[name] for name in SPLITS):,} images fell to {split}; "
                "expected at least one: change the fraction or prepare.seed, or give more (and different) images"
            )


def _with_progress(source: Source) -> Source:
    """The same source, counted on a progress bar where there is a terminal to show it."""
    return Source(source.count, source.classes, _tracked(source))


def _tracked(source: Source) -> Iterator[Chunk]:
    console = Console(stderr=True)
    columns = (TextColumn("prepare"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("prepare", total=source.count)
        for chunk in source.chunks:
            yield chunk
            progress.advance(task, len(chunk.images) + len(chunk.skipped))


def _report(meta: dict[str, Any], origin: str, folder: Path) -> None:
    skipped = meta["skipped"]
    for item in skipped[:SKIPPED_SHOWN]:
        print(f"prepare: skipped {shown(item['file'])}: {item['reason']}", file=sys.stderr)
    if skipped:
        files = "1 file skipped, named" if len(skipped) == 1 else f"{len(skipped):,} files skipped, all named"
        print(f"prepare: {files} in {folder / META_FILE}", file=sys.stderr)
    if meta["rounding_error"]:
        print(f"prepare: floats became 256 levels; largest rounding error {meta['rounding_error']:.2g} of the range")
    if meta["values"]["maximum"] <= 1:
        print("prepare: warning: no value is above 1 of 255; expected uint8 0..255 or floats [0, 1]", file=sys.stderr)
    if meta["shape"][0] > 1 and meta["values"]["kind"] == "grey":
        print("prepare: warning: all channels are equal; expected prepare.color: grey to do", file=sys.stderr)
    counts = ", ".join(f"{part['count']:,} {split}" for split, part in meta["splits"].items())
    shape = "x".join(map(str, meta["shape"]))
    kind = meta["values"]["kind"]
    print(f"prepare: {kind} values suit model.likelihood: {meta['values']['suitable_likelihoods']}")
    print(f"prepare: {counts} images of {shape} ({kind}) from {origin} -> {folder} (sha256 {meta['sha256'][:8]}...)")


def main() -> None:
    """Run the stage."""
    folder = _arguments().prepared
    params = load_params().prepare
    source = _with_progress(open_from_params(params))
    held_out = held_out_classes(params.held_out_labels, source.classes)
    draw = SplitDraw(params.val_fraction, params.test_fraction, params.seed, held_out)
    with atomic_directory(folder, META_FILE) as beside:
        meta = {"source": params.source, **prepare(source, draw, beside, params.train_images)}
        write_json(beside / META_FILE, meta)
    _report(meta, params.path if params.source in ("images", "array") else params.source, folder)


def _arguments() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m pipeline.prepare", description=__doc__, formatter_class=layout)
    parser.add_argument("prepared", type=Path, help="folder to write")
    return parser.parse_args()


if __name__ == "__main__":
    run_stage(main)
