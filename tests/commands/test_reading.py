"""What holds for every command that reads images; bad input ends each in one line, with nothing written."""

import subprocess
import sys
import weakref

import numpy as np
import pytest
from PIL import Image

from pipeline.commands import reading
from pipeline.runtime import Sampler
from pipeline.runtime import images as images_module

OUTPUTS = {"encode": "codes.npz", "score": "scores.csv", "reconstruct": "out"}


@pytest.fixture(params=OUTPUTS)
def command(request):
    return request.param


def is_refused(vae, tmp_path, command, *arguments):
    """The one line of the refusal."""
    before = sorted(tmp_path.rglob("*"))
    code, out, err = vae(command, *arguments)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    return err


def test_a_file_that_is_no_image_ends_the_command_with_its_name(vae, tmp_path, photos, command):
    (photos / "more" / "notes.txt").write_text("not an image")
    err = is_refused(vae, tmp_path, command, "photos", "-o", OUTPUTS[command])
    assert err == (
        "error: photos/more/notes.txt: not a PNG, JPEG, WebP or BMP image; "
        "expected an image (--skip-bad leaves such files out)\n"
    )


def test_a_truncated_image_is_named(vae, tmp_path, photos, command):
    whole = (photos / "03.png").read_bytes()
    (photos / "03.png").write_bytes(whole[:-30])
    assert "error: photos/03.png: cannot be decoded (" in is_refused(
        vae, tmp_path, command, "photos", "-o", OUTPUTS[command]
    )


def test_a_decompression_bomb_is_named_and_not_decoded(vae, tmp_path, photos, command):
    Image.new("1", (10_000, 10_000)).save(photos / "bomb.png")
    err = is_refused(vae, tmp_path, command, "photos", "-o", OUTPUTS[command])
    assert err.startswith("error: photos/bomb.png: more than 89,478,485 pixels, which is more than is safe to decode;")


def test_skipped_files_are_named_and_counted(vae, tmp_path, photos, command):
    (photos / "notes.txt").write_text("not an image")
    (photos / "00.png").write_bytes(b"")
    code, out, err = vae(command, "photos", "--skip-bad", "-o", OUTPUTS[command])
    assert code == 0
    assert "11 images" in out
    reason = "not a PNG, JPEG, WebP or BMP image"
    lines = [f"skipped photos/00.png: {reason}", f"skipped photos/notes.txt: {reason}", "skipped 2 of 13 files"]
    assert err.splitlines() == lines


def test_if_every_file_is_skipped_nothing_is_written(vae, tmp_path, command):
    (tmp_path / "notes.txt").write_text("not an image")
    code, out, err = vae(command, "notes.txt", "--skip-bad", "-o", OUTPUTS[command])
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "error: none of 1 file is an image; expected at least one"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_another_size_is_refused_even_with_skip_bad_and_taken_with_resize(vae, tmp_path, photos, command):
    Image.new("L", (9, 8)).save(photos / "05.png")
    err = is_refused(vae, tmp_path, command, "photos", "--skip-bad", "-o", OUTPUTS[command])
    assert err.startswith("error: photos/05.png: is 8x9 (height x width); expected 8x8")
    assert vae(command, "photos", "--resize", "-o", OUTPUTS[command])[0] == 0


def test_what_is_not_there_is_named(vae, tmp_path, command):
    err = is_refused(vae, tmp_path, command, "nowhere", "-o", OUTPUTS[command])
    assert err == "error: nowhere: not found; expected an image, or a folder of images\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "photos", "-o", "codes.txt"], "codes.txt: suffix is '.txt'; expected .npz"),
        (["score", "photos", "-o", "scores"], "scores: suffix is ''; expected .csv"),
        (["score", "photos", "--sheet", "sheet.jpg"], "sheet.jpg: suffix is '.jpg'; expected .png"),
        (["encode", "photos", "-o", "folder.npz"], "folder.npz: is a folder; expected the name of a file"),
        (["reconstruct", "photos", "-o", "photos"], "photos: already there; expected a folder that is new or empty"),
        (["reconstruct", "photos", "-o", "photos/00.png"], "--output is photos/00.png; expected a folder to fill"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_computed(vae, tmp_path, photos, monkeypatch, arguments, message):
    (tmp_path / "folder.npz").mkdir()
    monkeypatch.setattr(reading, "read_images", None)
    assert is_refused(vae, tmp_path, *arguments).startswith(f"error: {message}")


def test_no_more_than_two_batches_are_alive_at_once(vae, photos, monkeypatch, command):
    """One that is worked on, and one that is being put together."""
    alive = [0]
    most = 0

    def watched(*arguments):
        nonlocal most
        for batch in read_images(*arguments):
            alive[0] += 1
            most = max(most, alive[0])
            weakref.finalize(batch.images, lambda: alive.__setitem__(0, alive[0] - 1))
            yield batch

    read_images = images_module.read_images
    monkeypatch.setattr(images_module, "MOST_IMAGES_TOGETHER", 2)
    monkeypatch.setattr(reading, "read_images", watched)
    sheet = ["--sheet", "sheet.png"] if command == "score" else []
    assert vae(command, "photos", "-o", OUTPUTS[command], *sheet)[0] == 0
    assert 1 <= most <= 2


def test_colour_becomes_grey_for_a_grey_model(vae, tmp_path, digits8, mlp):
    Image.fromarray(digits8[0].repeat(3, 2)).save(tmp_path / "colour.png")
    assert vae("encode", "colour.png")[0] == 0
    with np.load("codes.npz", allow_pickle=False) as codes:
        expected = Sampler(mlp.folder, "cpu").encode(digits8[:1])[0]
        np.testing.assert_allclose(codes["mu"], expected, atol=1e-6)


@pytest.mark.parametrize("command", ["encode", "decode", "score", "reconstruct", "interpolate"])
def test_help_loads_no_library(command):
    code = f"""
import sys
from pipeline.cli import main
try:
    main(["{command}", "--help"])
finally:
    print([name for name in ("torch", "onnxruntime", "numpy", "PIL") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--model" in ended.stdout
    assert ended.stdout.endswith("[]\n")
