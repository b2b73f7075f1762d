import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from answers import many_scans
from conditional import write_model
from PIL import Image

from pipeline.runtime import Sampler
from pipeline.runtime.images import decode_image

PYTHON = Path(__file__).parents[2] / "examples" / "python"


def run(script, *arguments, **environment):
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command(script, *arguments), capture_output=True, text=True, timeout=60, env=environment)


def command(script, *arguments):
    return [sys.executable, "-P", str(PYTHON / script), *map(str, arguments)]


def test_python_example_draws_the_images_of_the_sampler(model, tmp_path):
    seeds = [0, 7, 2**63 - 1]
    rows = ["--count", 5, "--first", 40, "--seeds", *seeds]
    done = run("sample.py", model.folder / "sampler.onnx", tmp_path / "grid.png", *rows)
    assert not done.returncode, done.stderr
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    height, width, channels = model.sampler.image_shape
    cells = grid.reshape(3, height, 5, width, channels).swapaxes(1, 2)
    np.testing.assert_array_equal(cells, [model.sampler.sample(5, seed, first=40) for seed in seeds])


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seeds", -1), ("--seeds", 2**63), ("--count", 0), ("--first", 2**48), ("--temperature", "nan")],
)
def test_python_example_refuses_what_the_sampler_cannot_draw(mlp, tmp_path, option, value):
    done = run("sample.py", mlp.folder / "sampler.onnx", tmp_path / "grid.png", f"{option}={value}")
    assert done.returncode == 2
    assert f"error: {option}" in done.stderr
    assert not (tmp_path / "grid.png").exists()


def test_python_example_draws_a_class_of_a_conditional_model(mlp, tmp_path):
    sampler = write_model(tmp_path, mlp.metadata, ("circle", "square"))
    asked = [tmp_path / "sampler.onnx", tmp_path / "row.png", "--seeds", 3, "--count", 4]
    done = run("sample.py", *asked, "--label", 1)
    assert not done.returncode, done.stderr
    row = np.asarray(Image.open(tmp_path / "row.png")).reshape(2, 4, 2).swapaxes(0, 1)
    np.testing.assert_array_equal(row, sampler.sample(4, 3, label=1)[..., 0])
    for label in ([], ["--label", 2]):
        done = run("sample.py", *asked, *label)
        assert_one_line(done, f"error: --label is {label[1] if label else None}; expected 0 to 1, since ")


def not_onnx(folder, mlp):
    file = folder / "broken.onnx"
    file.write_bytes((mlp.folder / "scorer.onnx").read_bytes()[:500])
    return file


@pytest.mark.parametrize(
    ("script", "choose", "reason"),
    [
        ("sample.py", not_onnx, "not a whole ONNX file ("),
        ("watch.py", not_onnx, "not a whole ONNX file ("),
        ("sample.py", lambda _, mlp: mlp.folder / "decoder.onnx", "its inputs are z; expected a sampler.onnx"),
        ("watch.py", lambda _, mlp: mlp.folder / "encoder.onnx", "its inputs are images; expected a scorer.onnx"),
        ("watch.py", lambda _, mlp: mlp.folder / "sampler.onnx", "its inputs are seed, index, temperature; expected"),
    ],
)
def test_python_examples_say_what_is_wrong_with_a_file(mlp, tmp_path, script, choose, reason):
    file = choose(tmp_path, mlp)
    done = run(script, file, tmp_path / "grid.png" if script == "sample.py" else tmp_path)
    assert_one_line(done, f"error: {file}: {reason}")


@pytest.mark.parametrize(("script", "graph"), [("sample.py", "sampler"), ("watch.py", "scorer")])
def test_python_examples_say_that_an_onnxruntime_is_too_old_before_what_it_says(mlp, tmp_path, script, graph):
    (tmp_path / "onnxruntime.py").write_text("""
__version__ = "1.20.1"
class SessionOptions: pass
def InferenceSession(*_, **__): raise RuntimeError("Could not find an implementation for Mul(14)")
""")
    file = mlp.folder / f"{graph}.onnx"
    done = run(script, file, tmp_path / "grid.png" if graph == "sampler" else tmp_path, PYTHONPATH=str(tmp_path))
    assert_one_line(done, f"error: {file}: onnxruntime is 1.20.1; expected 1.21 or newer (Could not find")


def test_python_example_says_where_it_cannot_write(mlp, tmp_path):
    picture = tmp_path / "none" / "grid.png"
    assert_one_line(run("sample.py", mlp.folder / "sampler.onnx", picture), f"error: {picture}: No such file")


def assert_one_line(done, beginning):
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(beginning)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["sample.py", "watch.py"])
def test_python_examples_import_nothing_of_ours(script):
    assert "pipeline" not in (PYTHON / script).read_text()


@pytest.fixture
def images(exported, tmp_path):
    """A folder with images in several modes, one that is none, one of another size, and a hidden one."""
    _, height, width = exported.metadata.image_shape
    rng = np.random.default_rng(0)
    for mode, depth in {"L": 1, "RGB": 3, "RGBA": 4, "LA": 2}.items():
        pixels = rng.integers(0, 256, (height, width, depth), dtype=np.uint8)
        Image.fromarray(pixels.squeeze(), mode).save(tmp_path / f"{mode}.png")
    Image.fromarray(rng.integers(0, 2**16, (height, width), dtype=np.uint16)).save(tmp_path / "deep.png")
    keyed = np.arange(height * width, dtype=np.uint16).reshape(height, width) // 9  # of grey levels 0 and 1
    Image.fromarray(keyed).save(tmp_path / "deep_key.png", transparency=2)
    Image.new("L", (width + 1, height)).save(tmp_path / "wide.png")
    Image.new("L", (width, height)).save(tmp_path / ".hidden.png")
    (tmp_path / "notes.png").write_text("no image")
    return tmp_path


def test_watcher_scores_as_the_sampler_does(exported, images):
    done = run("watch.py", exported.folder / "scorer.onnx", images, "--once")
    assert not done.returncode, done.stderr
    lines = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    assert sorted(lines) == ["L.png", "LA.png", "RGB.png", "RGBA.png", "deep.png", "deep_key.png"]
    sampler = Sampler(exported.folder, "cpu", threads=1)
    for name, line in lines.items():
        score, _ = sampler.score(decode_image(str(images / name), sampler.image_shape)[None])
        share = 100 * float(sampler.strangeness(score)[0])
        printed, phrase = line.split("\t")
        assert float(printed) == pytest.approx(float(score[0]), rel=1e-5)
        assert float(phrase.removeprefix("stranger than ").removesuffix(" %")) == pytest.approx(share, abs=0.06)


def test_watcher_names_what_it_cannot_score(exported, images):
    done = run("watch.py", exported.folder / "scorer.onnx", images, "--once")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["notes.png", "wide.png"]
    assert "--resize" in done.stderr


def test_watcher_says_that_it_looks_into_no_folder_of_the_folder(mlp, tmp_path):
    (tmp_path / "class").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "class" / "image.png")
    done = run("watch.py", mlp.folder / "scorer.onnx", tmp_path, "--once")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{tmp_path}: no files in it (folders in it are not looked into)\n"


def test_watcher_ends_without_a_word_when_nobody_reads_on(exported, images):
    watch = command("watch.py", exported.folder / "scorer.onnx", images, "--once")
    (images / "notes.png").unlink()
    (images / "wide.png").unlink()
    with subprocess.Popen(watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:
        watcher.stdout.close()  # as `head` does
        assert watcher.stderr.read() == ""
    assert watcher.returncode == 141


def test_watcher_refuses_a_decompression_bomb(mlp, tmp_path):
    Image.new("1", (10000, 10000)).save(tmp_path / "bomb.png")
    done = run("watch.py", mlp.folder / "scorer.onnx", tmp_path, "--once", "--resize")
    assert not done.stdout
    assert "bomb.png: not scored" in done.stderr


def test_watcher_refuses_a_jpeg_of_more_scans_than_any_camera_writes(mlp, tmp_path):
    for scans in (100, 101):
        (tmp_path / f"{scans}.jpg").write_bytes(many_scans(scans))
    done = run("watch.py", mlp.folder / "scorer.onnx", tmp_path, "--once")
    assert done.stdout.startswith("100.jpg\t")
    assert done.stderr == "101.jpg: not scored: it is a JPEG of 101 scans, expected at most 100\n"


def test_watcher_scores_each_file_once_when_it_stands_still(mlp, tmp_path):
    _, height, width = mlp.metadata.image_shape
    Image.new("L", (width, height)).save(tmp_path / "black.png")
    done = run("watch.py", mlp.folder / "scorer.onnx", tmp_path, "--interval", 0.05, "--seconds", 1)
    assert not done.returncode, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["black.png"]


@pytest.mark.parametrize(
    ("option", "value"), [("--interval", 0), ("--interval", "inf"), ("--seconds", -1), ("--seconds", "nan")]
)
def test_watcher_refuses_times_that_are_none(mlp, tmp_path, option, value):
    done = run("watch.py", mlp.folder / "scorer.onnx", tmp_path, f"{option}={value}")
    assert done.returncode == 2
    assert f"error: {option} is {float(value)}; expected" in done.stderr


def test_watcher_scores_what_arrives_and_what_changes(mlp, tmp_path):
    _, height, width = mlp.metadata.image_shape
    file = tmp_path / "image.png"
    arguments = [mlp.folder / "scorer.onnx", tmp_path, "--interval", 0.05, "--seconds", 30]
    with subprocess.Popen(command("watch.py", *arguments), stdout=subprocess.PIPE, text=True) as watcher:
        lines = []
        for colour in ("black", "white"):
            Image.new("L", (width, height), colour).save(file)
            lines.append(watcher.stdout.readline().split("\t"))
        watcher.terminate()
    assert [line[0] for line in lines] == ["image.png", "image.png"]
    assert lines[0][1] != lines[1][1]
