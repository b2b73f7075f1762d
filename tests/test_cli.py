import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main
from pipeline.runtime import Sampler


def vae(capsys, *arguments):
    """Exit code, stdout and stderr of `vae` with these arguments."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def test_sample_writes_a_grid_and_says_so(mlp, tmp_path, capsys):
    output = tmp_path / "grid.png"
    code, out, err = vae(capsys, "sample", "-n", 4, "--seed", 3, "--model", mlp.folder, "-o", output)
    assert (code, err) == (0, "")
    assert out == f"wrote {output}: numbers 0 to 3 of seed 3, drawn from {mlp.folder}\n"
    with Image.open(output) as picture:
        assert picture.size == (118, 118)


def test_sample_draws_what_the_sampler_draws(conv, tmp_path, capsys):
    output = tmp_path / "images.npy"
    options = ("--seed", 7, "--first", 40, "--temperature", 0.5, "--device", "cpu")
    assert vae(capsys, "sample", "-n", 6, *options, "--model", conv.folder, "-o", output)[0] == 0
    expected = Sampler(conv.folder, "cpu").sample(6, seed=7, first=40, temperature=0.5)
    assert np.array_equal(np.load(output, allow_pickle=False), expected)


def test_sample_fills_a_folder(mlp, tmp_path, capsys):
    assert vae(capsys, "sample", "-n", 3, "--model", mlp.folder / "sampler.onnx", "-o", f"{tmp_path}/many/")[0] == 0
    assert len(list((tmp_path / "many").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "0"], "error: n is 0; expected a whole number >= 1\n"),
        (["--seed", "-1"], "error: seed is -1; expected a whole number from 0 to 9223372036854775807\n"),
        (["--temperature", "nan"], "error: temperature is nan; expected a number from 0 to 1000\n"),
        (["--device", "gpu"], "error: device is 'gpu'; expected one of auto, cpu, cuda, tensorrt\n"),
        (["--model", "nowhere"], "error: nowhere: not found; expected an ONNX file that the export stage wrote\n"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1_and_writes_nothing(mlp, tmp_path, capsys, options, message):
    before = ["sample", "--model", mlp.folder, "-o", tmp_path / "grid.png"]
    assert vae(capsys, *before, *options) == (1, "", message)
    assert list(tmp_path.iterdir()) == []


def test_a_word_in_place_of_a_number_is_a_usage_error(capsys):
    code, out, err = vae(capsys, "sample", "-n", "many")
    assert (code, out) == (2, "")
    assert "Usage: vae sample" in err
    assert "'-n'" in err


def test_info_on_a_folder_shows_its_origin_and_every_file(conv, capsys):
    code, out, err = vae(capsys, "info", conv.folder)
    assert (code, err) == (0, "")
    for line in ("data_sha256   " + "da7a" * 16, "git_revision  0fb6cfb", "image_shape   [3, 10, 14]"):
        assert line in out
    for name in ("sampler.onnx", "decoder.onnx", "encoder.onnx"):
        assert name in out
    for tensor in ("temperature float32 [n]", "images uint8 [n, 10, 14, 3]", "x float32 [n, 3, 10, 14]"):
        assert tensor in out
    assert out.endswith("Every file has the sha256 that manifest.json lists, the 8 in triton/ too.\n")


def test_info_on_a_file_shows_its_sha256(mlp, capsys):
    code, out, _ = vae(capsys, "info", mlp.folder / "encoder.onnx")
    assert code == 0
    assert "logvar float32 [n, 3]" in out
    assert len(out.splitlines()[-1]) == len("sha256 ") + 64


@pytest.mark.parametrize("name", ["decoder.onnx", "triton/decoder/1/model.onnx", "triton/decoder/config.pbtxt"])
def test_info_refuses_a_folder_with_a_changed_file(mlp, tmp_path, capsys, name):
    folder = shutil.copytree(mlp.folder, tmp_path / "export")
    shutil.copy(folder / "encoder.onnx", folder / name)
    code, out, err = vae(capsys, "info", folder)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {folder}/{name}: sha256 is")
    assert err.count("\n") == 1


def test_help_describes_every_command_and_loads_no_library():
    code = """
import sys
from pipeline.cli import main
try:
    main(["--help"])
finally:
    print([name for name in ("torch", "onnxruntime", "numpy", "PIL") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Draw images from the model." in ended.stdout
    assert "where it came from" in ended.stdout
    assert ended.stdout.endswith("[]\n")
