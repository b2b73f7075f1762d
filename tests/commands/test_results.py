"""What each command writes."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.commands import score as score_module
from pipeline.runtime import Sampler, pictures
from pipeline.runtime.contact_sheet import Scored, colour_errors, contact_sheet, error_range


@pytest.fixture
def sampler(mlp):
    return Sampler(mlp.folder, "cpu")


def scores_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_codes_are_those_of_the_encoder_and_name_their_files(vae, photos, sampler, digits8):
    assert vae("encode", "photos", "-o", "deep/codes.npz") == (0, "wrote deep/codes.npz: 3 latents of 12 images\n", "")
    assert vae("encode", "photos", "-o", "codes.NPZ")[0] == 0
    assert sorted(Path().glob("*codes*")) == [Path("codes.NPZ")]
    with np.load("deep/codes.npz", allow_pickle=False) as codes:
        names = [f"photos/{'more/' * (number > 5)}{number:02}.png" for number in range(12)]
        assert codes["files"].tolist() == names
        for name, expected in zip(("mu", "logvar"), sampler.encode(digits8), strict=True):
            assert codes[name].dtype == np.float32
            np.testing.assert_allclose(codes[name], expected, atol=1e-6)


def test_codes_decode_to_the_reconstructions(vae, photos, sampler, digits8):
    vae("encode", "photos")
    assert vae("decode", "codes.npz", "-o", "x.npy") == (0, "wrote x.npy: 12 images of the latents in codes.npz\n", "")
    expected = sampler.decode(sampler.encode(digits8)[0])
    assert np.abs(np.load("x.npy", allow_pickle=False).astype(int) - expected).max() <= 1
    assert vae("decode", "codes.npz")[0] == 0
    with Image.open("decoded.png") as grid:
        assert grid.size == (4 * 58 + 2, 3 * 58 + 2)


def test_latents_of_an_npy_decode_too_into_a_folder(vae, tmp_path):
    np.save("z.npy", np.zeros((600, 3)))
    assert vae("decode", "z.npy", "-o", "many/")[0] == 0
    assert len(list((tmp_path / "many").glob("*.png"))) == 600


def header(text):
    """An .npy file that ends with its header."""
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("z.npy", np.zeros((2, 4)), "z is [2, 4]; expected [n, 3], the model's latents"),
        ("z.npy", np.zeros((0, 3)), "holds float64 [0, 3]; expected numbers [n >= 1, latent_dim]"),
        ("z.npy", np.array([["a", "b", "c"]]), "holds <U1 [1, 3]; expected numbers"),
        ("z.npy", np.array([[{}] * 3]), "not readable as codes (Array can't be memory-mapped: Python objects"),
        ("z.npy", b"\x93NUMPY broken", "not readable as codes ("),
        ("z.npy", header("{'shape': (2,"), "not readable as codes ("),  # tokenize.TokenError
        ("z.npy", header("{}{}\n  {}\n {}"), "not readable as codes ("),  # IndentationError
        ("z.npz", b"PK broken", "not readable as codes (File is not a zip file)"),
        ("z.npz", {"logvar": np.zeros((2, 3))}, "not readable as codes (\"There is no item named 'mu.npy'"),
        ("z.npz", {"mu": np.array([[{}] * 3])}, "not readable as codes (Object arrays cannot be loaded"),
    ],
)
def test_codes_of_another_kind_are_refused(vae, tmp_path, name, array, message):
    if isinstance(array, bytes):
        (tmp_path / name).write_bytes(array)
    elif isinstance(array, dict):
        np.savez(tmp_path / name, **array)
    else:
        np.save(tmp_path / name, array)
    code, out, err = vae("decode", name)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {name}: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_codes_that_would_fill_the_memory_are_refused_before_they_are_read(vae, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((100_000, 3), np.float32))
        archive.writestr("mu.npy", buffer.getvalue())
    monkeypatch.setattr("pipeline.commands.decode.MAX_CODES_BYTES", 10**6)
    code, _, err = vae("decode", "bomb.npz")
    assert code == 1
    assert "(mu has 1,200,128 bytes, more than 1,000,000)" in err


@pytest.mark.parametrize("name", ["codes.npz", "codes.npy"])
def test_a_header_longer_than_any_codes_need_is_refused_before_it_is_read(vae, tmp_path, name):
    content = b"\x93NUMPY\2\0" + (2**24).to_bytes(4, "little") + b" " * 2**24
    (tmp_path / name).write_bytes(archive_of(content) if name.endswith("z") else content)
    code, out, err = vae("decode", name)
    assert (code, out) == (1, "")
    reason = "a header of 16,777,216 bytes; expected at most 65,536"
    assert err == f"error: {name}: not readable as codes ({reason}); expected .npz with mu, or .npy of z\n"


def test_an_entry_that_hides_behind_the_name_of_the_codes_is_not_read(vae, tmp_path):
    content = archive_of(npy(np.zeros((2, 3))))
    (tmp_path / "codes.npz").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "codes.npz", "a") as archive:
        archive.writestr("mu", npy(np.zeros((5, 3))))
    assert vae("decode", "codes.npz", "-o", "x.npy")[1] == "wrote x.npy: 2 images of the latents in codes.npz\n"


def archive_of(content, compression=zipfile.ZIP_DEFLATED):
    """The bytes of an .npz whose mu.npy has this content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("mu.npy", content)
    return bytearray(buffer.getvalue())


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def huge():
    return archive_of(npy(np.zeros((2, 3))).replace(b"'shape': (2, 3), }       ", b"'shape': (9999999, 3), } "))


def spoilt(local, central, value):
    """An archive with another 16-bit field in both of the headers that an entry has."""
    content = archive_of(npy(np.zeros((2, 3))))
    for at in (local, content.index(b"PK\1\2") + central):
        content[at : at + 2] = value.to_bytes(2, "little")
    return content


def torn(compression, at):
    """An archive in which one byte of the packed array is another."""
    content = archive_of(npy(np.zeros((2, 3))), compression)
    content[30 + len("mu.npy") + at] = 0xFF
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (huge(), "mu has 176 bytes, its shape promises 239,999,976"),
        (spoilt(6, 8, 1), "File 'mu.npy' is encrypted"),
        (spoilt(8, 10, 99), "That compression method is not supported"),
        (torn(zipfile.ZIP_DEFLATED, 0), "Error -3 while decompressing data"),  # a kind of block that deflate lacks
        (torn(zipfile.ZIP_LZMA, 9), "Corrupt input data"),
    ],
    ids=["huge", "encrypted", "unknown compression", "torn", "torn LZMA"],
)
def test_an_archive_that_cannot_be_unpacked_is_one_line(vae, tmp_path, content, reason):
    (tmp_path / "codes.npz").write_bytes(content)
    code, out, err = vae("decode", "codes.npz")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: codes.npz: not readable as codes ({reason}")
    assert err.count("\n") == 1


def test_a_latent_that_is_not_finite_leaves_nothing_behind(vae, tmp_path):
    z = np.zeros((600, 3))
    z[599, 1] = np.nan
    np.save("z.npy", z)
    assert vae("decode", "z.npy", "-o", "x.npy") == (
        1,
        "",
        "error: z holds a NaN or an infinity; expected finite numbers\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["z.npy"]


def test_scores_are_sorted_the_strangest_first(vae, photos, sampler, digits8):
    code, out, err = vae("score", "photos")
    assert (code, err) == (0, "")
    rows = scores_of("scores.csv")
    assert list(rows[0]) == ["file", "score", "stranger_than"]
    scores, _ = sampler.score(digits8)
    found = [float(row["score"]) for row in rows]
    np.testing.assert_allclose(found, np.sort(scores)[::-1], rtol=1e-5)
    strangest = int(scores.argmax())
    assert rows[0]["file"] == f"photos/{'more/' * (strangest > 5)}{strangest:02}.png"
    assert rows[0]["file"] in out
    np.testing.assert_allclose([float(row["stranger_than"]) for row in rows], sampler.strangeness(found), atol=1e-4)


def test_a_file_name_with_a_comma_or_a_line_break_stays_one_field(vae, tmp_path, digits8):
    Image.fromarray(digits8[0, ..., 0]).save(tmp_path / 'a,"b"\nc.png')
    code, out, _ = vae("score", tmp_path / 'a,"b"\nc.png')
    assert code == 0
    assert out.count("\n") == 1
    assert scores_of("scores.csv")[0]["file"] == str(tmp_path / 'a,"b"\nc.png')


def test_of_one_image_is_told_in_the_singular(vae, photos):
    told = {
        ("encode", "photos/03.png"): "codes.npz: 3 latents of 1 image",
        ("decode", "codes.npz"): "decoded.png: 1 image of the latents in codes.npz",
        ("reconstruct", "photos/03.png"): "reconstructions: 1 image beside its reconstruction",
        ("reconstruct", "photos/03.png", "--alone", "-o", "alone"): "alone: 1 reconstruction",
    }
    assert [vae(*arguments) for arguments in told] == [(0, f"wrote {line}\n", "") for line in told.values()]
    first, second = vae("score", "photos/03.png", "--sheet", "sheet.png")[1].splitlines()
    assert first.startswith("wrote scores.csv: 1 image; the strangest is photos/03.png at ")
    assert second == "wrote sheet.png: the image beside its error map"


def test_the_sheet_shows_the_strangest_whatever_the_batches(vae, photos, monkeypatch, sampler, digits8):
    seen = []
    monkeypatch.setattr(score_module, "ON_THE_SHEET", 5)
    monkeypatch.setattr("pipeline.runtime.images.MOST_IMAGES_TOGETHER", 4)
    monkeypatch.setattr(
        "pipeline.runtime.contact_sheet.contact_sheet", lambda scored: seen.extend(scored) or contact_sheet(scored)
    )
    assert vae("score", "photos", "--sheet", "sheet.png")[0] == 0
    order = np.argsort(-sampler.score(digits8)[0])[:5]
    assert [item.file[-6:-4] for item in seen] == [f"{number:02}" for number in order]
    for item, number in zip(seen, order, strict=True):
        np.testing.assert_array_equal(item.image, digits8[number])
        assert item.image.base is None  # a slice would keep the whole batch
    with Image.open("sheet.png") as sheet:
        assert sheet.mode == "RGB"
        assert np.asarray(sheet).std() > 10


def test_one_image_beyond_all_others_does_not_darken_their_error_maps():
    rng = np.random.default_rng(0)
    errors = [rng.uniform(0, 2, (8, 8)).astype(np.float32) for _ in range(5)]
    low, high = error_range([*errors, errors[0] * 1e9])
    assert 0 <= low < 0.2
    assert 1.5 < high < 2.5
    colours = colour_errors(np.array([[-1, low, (low + high) / 2, high, 1e9]], np.float32), low, high)[0].astype(int)
    assert (colours[0] == colours[1]).all()
    assert (colours[3] == colours[4]).all()
    assert colours[1].sum() < colours[2].sum() < colours[3].sum()


def test_one_pixel_beyond_all_others_does_not_darken_the_rest_of_its_map():
    errors = [np.random.default_rng(seed).uniform(0, 2, (28, 28)).astype(np.float32) for seed in range(5)]
    for error in errors:
        error[3, 4] = 1e9
    assert 1.5 < error_range(errors)[1] < 2.5


@pytest.mark.parametrize("shape", [(8, 8, 1), (10, 14, 3), (200, 30, 3)])
def test_a_sheet_has_room_for_each_image_and_its_map(shape):
    image, error = np.full(shape, 77, np.uint8), np.zeros(shape[:2], np.float32)
    sheet = contact_sheet([Scored(f"{'folder/' * 20}{n}.png", 1e18, 1.0, image, error) for n in range(7)])
    pixels = np.asarray(sheet)
    factor = -(-112 // max(shape[:2]))
    assert (pixels == 77).all(2).sum() == 7 * shape[0] * shape[1] * factor**2


def test_reconstructions_lie_beside_their_originals(vae, photos, tmp_path, sampler, digits8):
    assert vae("reconstruct", "photos", "-o", "out") == (0, "wrote out: 12 images beside their reconstructions\n", "")
    files = sorted((tmp_path / "out").iterdir())
    assert [files[0].name, files[11].name] == ["000000-00.png", "000011-11.png"]
    expected = sampler.decode(sampler.encode(digits8)[0])
    with Image.open(files[7]) as picture:
        pixels = np.asarray(picture)[::13, ::13].astype(int)  # each pixel is a square of 13
    np.testing.assert_array_equal(pixels[:, :8], digits8[7, ..., 0])
    assert np.abs(pixels[:, -8:] - expected[7, ..., 0]).max() <= 1


def test_a_name_as_long_as_a_file_system_takes_is_shortened_by_its_bytes(vae, tmp_path, digits8):
    Image.fromarray(digits8[0, ..., 0]).save(tmp_path / f"{'é' * 125}.png")  # 254 bytes
    assert vae("reconstruct", ".", "-o", "out")[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"000000-{'é' * 100}.png"]


def test_reconstructions_alone_have_the_size_of_the_model(vae, photos, tmp_path, sampler, digits8):
    assert vae("reconstruct", "photos/03.png", "--alone", "-o", "out")[0] == 0
    with Image.open(tmp_path / "out" / "000000-03.png") as picture:
        expected = sampler.decode(sampler.encode(digits8[3:4])[0])[0, ..., 0]
        assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 1


def test_a_walk_starts_and_ends_at_the_images_of_its_seeds(vae, sampler):
    code, out, _ = vae("interpolate", "--seeds", "3,8,11", "--steps", 5)
    assert (code, out) == (0, "wrote walk.gif: from seed to seed through 3, 8, 11 in 5 pictures each\n")
    ends = [sampler.sample(1, seed)[0, ..., 0].astype(int) for seed in (3, 8, 11)]
    with Image.open("walk.gif") as animation:
        assert animation.n_frames == 16  # nine there, seven back
        for number, expected in ((0, ends[0]), (4, ends[1]), (8, ends[2]), (12, ends[1])):
            animation.seek(number)
            frame = np.asarray(animation.convert("L"))[::28, ::28]
            assert np.abs(frame - expected).max() <= 2


def test_a_strip_has_a_row_for_each_leg(vae):
    assert vae("interpolate", "--seeds", "3, 8, 11", "--steps", 4, "-o", "strip.png")[0] == 0
    with Image.open("strip.png") as strip:
        assert strip.size == (4 * 58 + 2, 2 * 58 + 2)


def test_a_strip_of_too_many_pixels_is_refused_before_an_image_is_made(vae, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_GRID_VALUES", 10**4)
    monkeypatch.setattr(Sampler, "decode", None)
    code, out, err = vae("interpolate", "--seeds", "3,8,11", "--steps", 4, "-o", "strip.png")
    assert (code, out) == (1, "")
    assert err == "error: strip.png: a strip of 234x118 pixels; expected fewer images (or another form than PNG)\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "3"], "--seeds is '3'; expected two whole numbers or more, such as 3,8"),
        (["--seeds", "3,x"], "--seeds is '3,x'; expected two whole numbers"),
        (["--seeds", "3,-8"], "--seeds is '3,-8'; expected two whole numbers"),
        (["--seeds", f"3,{2**63}"], "seed is 9223372036854775808; expected a whole number from 0"),
        (["--seeds", "3," + "9" * 5000], "--seeds is '3,99"),
        (["--seeds", "3,8", "--steps", "1"], "--steps is 1; expected 2 to 2000 for 2 seeds"),
        (["--seeds", "3,8", "--steps", "0"], "--steps is 0; expected 2 to 2000"),
        (["--seeds", "3,8,9", "--steps", "1001"], "--steps is 1001; expected 2 to 1000 for 3 seeds"),
        (["--seeds", "3,8", "--fps", "0"], "--fps is 0; expected 1 to 50"),
        (["--seeds", "3,8", "--temperature", "nan"], "temperature is nan; expected a number from 0"),
        (["--seeds", "3,8", "-o", "walk.gif/"], "walk.gif/: is a folder; expected the name of a file"),
        (["--seeds", "3,8", "-o", "walk.mp4"], "walk.mp4: suffix is '.mp4'; expected .gif or .png"),
    ],
)
def test_a_walk_that_cannot_be_is_refused_in_one_line(vae, tmp_path, options, message):
    code, out, err = vae("interpolate", *options)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
