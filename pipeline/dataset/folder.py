"""A folder of PNG, JPEG, WebP or BMP files, with or without one subfolder per class.

Links to files are followed wherever they point: DVC itself may store a tracked folder as links into its cache.
Names that begin with a dot are ignored; every other file counts as an image, and one that is none as a bad one.
"""

from pathlib import Path

from pipeline.dataset.chunks import Source
from pipeline.dataset.decode import ImageFile, OnBadImage, decode_files, is_image
from pipeline.dataset.pixels import Conversion
from pipeline.dataset.store import SPLITS
from pipeline.errors import UserError, shown


def open_folder(folder: Path, conversion: Conversion, on_bad_image: OnBadImage) -> Source:
    """The images of `folder`, sorted by path; subfolders are classes, in the order of their names.

    Only the names are held in memory, not the images.

    Raises:
        UserError: the folder is missing, empty, holds images beside subfolders, or subfolders in subfolders; the name
            of a class is no UTF-8.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "not found"
        raise UserError(f"prepare.path: {folder} is {found}; expected a folder of images")
    entries = _visible(folder)
    subfolders = [entry for entry in entries if entry.is_dir()]
    if not subfolders:
        files = [_image_file(path, None) for path in entries]
        return _source(folder, files, None, conversion, on_bad_image)
    loose = [entry for entry in entries if not entry.is_dir()]
    if image := next(filter(is_image, loose), None):
        raise UserError(
            f"{shown(str(image))}: lies beside subfolders such as {shown(subfolders[0].name)}; "
            "expected all images in subfolders, one per class, or none"
        )
    files = [_image_file(path, None) for path in loose]  # decode_files tells of them, or leaves them out
    files += [
        _image_file(path, label) for label, subfolder in enumerate(subfolders) for path in _images_of_class(subfolder)
    ]
    return _source(folder, files, tuple(map(_class_name, subfolders)), conversion, on_bad_image)


def _source(
    folder: Path,
    files: list[ImageFile],
    classes: tuple[str, ...] | None,
    conversion: Conversion,
    on_bad_image: OnBadImage,
) -> Source:
    if not files:
        raise UserError(f"prepare.path: {folder} holds no images; expected PNG, JPEG, WebP or BMP files")
    return Source(len(files), classes, decode_files(files, conversion, on_bad_image))


def _class_name(subfolder: Path) -> str:
    try:
        subfolder.name.encode()
    except UnicodeEncodeError:  # metadata and answers in JSON could not have it
        raise UserError(f"{shown(str(subfolder))}: is no UTF-8; expected the name of a class in UTF-8") from None
    return subfolder.name


def _images_of_class(subfolder: Path) -> list[Path]:
    paths = _visible(subfolder)
    if not paths:
        raise UserError(f"{shown(str(subfolder))}: holds no images; expected at least one in each class's folder")
    for path in paths:
        if path.is_dir():
            raise UserError(f"{shown(str(path))}: is a folder in a class's folder; expected images only")
    return paths


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{shown(str(folder))}: cannot be listed ({error.strerror})") from None


def _image_file(path: Path, label: int | None) -> ImageFile:
    return ImageFile(str(path), label, SPLITS)
