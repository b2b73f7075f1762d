import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conditional import write_model
from PIL import Image
from typer.main import get_command

from pipeline.cli import app, main
from pipeline.commands import options
from pipeline.files import read_json, write_json
from pipeline.graphs.demo import write_demo
from pipeline.graphs.manifest import build_manifest
from pipeline.runtime import Sampler

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = [README, *sorted((ROOT / "docs").glob("*.md"))]


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


def test_more_images_than_a_seed_has_are_refused_by_the_name_of_the_option(mlp, tmp_path, capsys):
    asked = ["sample", "-n", 10**30, "--model", mlp.folder, "-o", tmp_path / "many.npy"]
    assert vae(capsys, *asked) == (1, "", f"error: count is {10**30}; expected a whole number from 1 to {2**48}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "0"], "error: count is 0; expected a whole number >= 1\n"),
        (["--seed", "-1"], "error: seed is -1; expected a whole number from 0 to 9223372036854775807\n"),
        (["--temperature", "nan"], "error: temperature is nan; expected a number from 0 to 1000\n"),
        (
            ["--seed", str(2**63)],
            "error: seed is 9223372036854775808; expected a whole number from 0 to 9223372036854775807\n",
        ),
        (["--temperature", "-1"], "error: temperature is -1.0; expected a number from 0 to 1000\n"),
        (["--temperature", "inf"], "error: temperature is inf; expected a number from 0 to 1000\n"),
        (
            ["-n", "10001"],
            "error: {grid}: a grid of 10001 images; expected at most 10000 (use .npy or a folder/)\n",
        ),
        (["--label", "7"], "error: label is '7'; expected none, since the sampler.onnx of this model takes no label\n"),
        (["--device", "gpu"], "error: device is 'gpu'; expected one of auto, cpu, cuda, tensorrt\n"),
        (
            ["--model", "nowhere"],
            "error: nowhere: not found; expected an export folder or one of its ONNX files\n",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1_and_writes_nothing(mlp, tmp_path, capsys, options, message):
    before = ["sample", "--model", mlp.folder, "-o", tmp_path / "grid.png"]
    assert vae(capsys, *before, *options) == (1, "", message.format(grid=tmp_path / "grid.png"))
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_does_not_exist_ends_the_command(mlp, tmp_path, capsys):
    write_model(tmp_path, mlp.metadata, ("circle", "square"))
    command = ["sample", "--model", tmp_path, "-o", tmp_path / "images.npy", "-n", 2]
    expected = "error: label is 'star'; expected one of circle, square, or an index from 0 to 1\n"
    assert vae(capsys, *command, "--label", "star") == (1, "", expected)
    assert not (tmp_path / "images.npy").exists()
    assert vae(capsys, *command, "--label", "square")[0] == 0
    assert np.load(tmp_path / "images.npy", allow_pickle=False).min() > 100  # the class's grey value is 127


def cut_sampler(folder):
    content = (folder / "sampler.onnx").read_bytes()
    (folder / "sampler.onnx").write_bytes(content[: len(content) // 2])


def cut_lone_sampler(folder):
    cut_sampler(folder)
    (folder / "manifest.json").unlink()
    return folder / "sampler.onnx"


def climb_out(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../sampler.onnx"] = manifest["files"].pop("sampler.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def cut_manifest(folder):
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:40])


@pytest.mark.parametrize("command", ["sample -o grid.png --model", "info", "serve --port 0 --model"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_sampler, "export/sampler.onnx: sha256 is "),
        (cut_lone_sampler, "export/sampler.onnx: not a whole ONNX file that onnxruntime can open ("),
        (climb_out, "export/manifest.json: names the file '../sampler.onnx'; expected a plain name inside its folder"),
        (cut_manifest, "export/manifest.json: "),
    ],
)
def test_a_spoilt_export_ends_a_command_in_one_line(mlp, tmp_path, capsys, monkeypatch, command, spoil, message):
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(mlp.folder, "export"))
    given = spoil(folder) or folder
    code, out, err = vae(capsys, *command.split(), given)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".png"] == []


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
    assert re.search(r"latent_kl     \d\S* nats, [0-3] of 3 dimensions >= 0.01\s*\n", out)
    for name in ("sampler.onnx", "decoder.onnx", "encoder.onnx"):
        assert name in out
    for tensor in ("temperature float32 [n]", "images uint8 [n, 10, 14, 3]", "x float32 [n, 3, 10, 14]"):
        assert tensor in out
    assert out.endswith("Every file has the sha256 that manifest.json lists, the 8 in triton/ too.\n")


def test_info_says_what_was_found_of_variants(mlp, tmp_path, capsys):
    folder = shutil.copytree(mlp.folder, tmp_path / "export")
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"variants": {"int8": "not written: too slow [64]"}})
    code, out, err = vae(capsys, "info", folder)
    assert (code, err) == (0, "")
    assert "int8  not written: too slow [64]\n" in out


def test_a_variant_is_drawn_from_where_it_is_asked_for(mlp, tmp_path, capsys):
    folder = shutil.copytree(mlp.folder, tmp_path / "export")
    model = onnx.load_from_string(mlp.files["sampler.onnx"])
    onnx.helper.set_model_props(model, dataclasses.replace(mlp.metadata, graph="sampler", variant="int8").to_strings())
    files = {**mlp.files, "sampler.int8.onnx": model.SerializeToString()}
    (folder / "sampler.int8.onnx").write_bytes(files["sampler.int8.onnx"])
    write_json(folder / "manifest.json", build_manifest(files))
    output = tmp_path / "images.npy"
    arguments = ("sample", "-n", 2, "-o", output, "--model", folder, "--variant")
    assert vae(capsys, *arguments, "int8")[0] == 0
    assert output.exists()
    code, _, err = vae(capsys, *arguments, "fp16")
    assert code == 1
    assert "lists no sampler.fp16.onnx" in err


def test_info_names_the_classes_of_a_conditional_model(mlp, tmp_path, capsys):
    write_model(tmp_path, mlp.metadata, ["night", "dusk", "day"])
    code, out, err = vae(capsys, "info", tmp_path)
    assert (code, err) == (0, "")
    assert re.search(r"^labels +0 night, 1 dusk, 2 day *$", out, re.MULTILINE)


def test_info_says_how_the_scores_of_the_validation_images_lie(mlp, capsys):
    scale = Sampler(mlp.folder, "cpu").score_scale
    for path in (mlp.folder, mlp.folder / "scorer.onnx"):
        said = " ".join(vae(capsys, "info", path)[1].split())
        assert f" {scale.scores[5]:.1f} at 50 %, " in said
        assert f" {scale.scores[-1]:.1f} at 100 % of the validation images (nats, 4 samples of z) " in said
    assert "validation images" not in vae(capsys, "info", mlp.folder / "decoder.onnx")[1]


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


@pytest.fixture
def demo(mlp, tmp_path, monkeypatch):
    """The sampler of the small model as the demo, and a working directory in which nothing was exported."""
    folder = tmp_path / "demo"
    write_demo(mlp.folder, folder)
    monkeypatch.setattr(options, "DEMO_FOLDER", folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_the_demo_draws_where_nothing_was_exported(demo, mlp, capsys):
    code, out, err = vae(capsys, "sample", "--demo", "-n", 5, "--seed", 2, "-o", "images.npy")
    assert (code, out, err) == (0, "wrote images.npy: numbers 0 to 4 of seed 2, drawn from the demo\n", "")
    images = np.load("images.npy", allow_pickle=False)
    assert np.array_equal(images, Sampler(mlp.folder, "cpu").sample(5, seed=2))


def test_the_demo_is_described(demo, capsys):
    code, out, _ = vae(capsys, "info", "--demo")
    assert code == 0
    assert "sampler.onnx" in out
    assert "decoder.onnx" not in out
    assert "git_revision  0fb6cfb" in out


@pytest.mark.parametrize("command", ["sample", "serve"])
def test_the_demo_and_a_model_exclude_each_other(demo, capsys, command):
    message = "error: --demo and --model are both given; expected one of them\n"
    assert vae(capsys, command, "--demo", "--model", "models/export") == (1, "", message)
    assert list(Path.cwd().iterdir()) == []


def test_the_demo_and_a_path_exclude_each_other(demo, capsys):
    assert vae(capsys, "info", "--demo", demo) == (
        1,
        "",
        "error: --demo and a path are both given; expected one of them\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [["sample"], ["serve"], ["info"], ["encode", "."], ["score", "."], ["interpolate", "--seeds", "1,2"]],
    ids=lambda arguments: arguments[0],
)
def test_where_nothing_was_exported_the_demo_is_named(demo, capsys, arguments):
    code, out, err = vae(capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(
        "error: models/export: not found; expected what `make repro` exports (`vae sample --demo` and"
    )
    assert err.count("\n") == 1


def test_what_the_demo_lacks_is_named(demo, tmp_path, capsys):
    np.save("z.npy", np.zeros((2, 3), np.float32))
    code, _, err = vae(capsys, "decode", "z.npy", "--model", demo)
    assert code == 1
    assert err == f"error: {demo}/manifest.json: lists no decoder.onnx; expected one of sampler.onnx\n"


def commands():
    return get_command(app).commands


@pytest.mark.parametrize("name", ["", *commands()])
def test_help_fits_a_terminal_of_80_columns_and_cuts_nothing(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = vae(capsys, *filter(None, [name]), "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "..." not in out.split("Options:")[1]  # behind the usage


@pytest.mark.parametrize("name", commands())
def test_every_option_says_what_it_does(name):
    parameters = commands()[name].params
    assert [parameter.name for parameter in parameters if not parameter.help] == []


@pytest.mark.parametrize("name", commands())
def test_every_command_stands_in_the_readme(name):
    assert f"$ vae {name} " in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", commands())
def test_every_option_stands_in_the_docs(name):
    """A command's own options, not those that all share, are shown in use or explained."""
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS)
    options_of_it = {parameter.opts[0] for parameter in commands()[name].params if parameter.opts[0].startswith("--")}
    assert [option for option in sorted(options_of_it) if f"{option}" not in text] == []


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
