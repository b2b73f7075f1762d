import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline import prepare as stage
from pipeline.dataset.store import SPLITS, open_prepared
from pipeline.errors import UserError
from pipeline.params import Params

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("VAE_TEST_DATA", ROOT.parent / "shared/data"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory with the repository's params.yaml; returns a function that changes `prepare`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare", "data/prepared"])
    yaml = YAML()
    content = yaml.load((ROOT / "params.yaml").read_text())

    def set_params(**values):
        content["prepare"].update(values)
        with (tmp_path / "params.yaml").open("w") as file:
            yaml.dump(content, file)

    set_params()
    return set_params


def run_main():
    stage.main()
    return open_prepared("data/prepared")


def put_images(folder, images, classes=("",)):
    for i, image in enumerate(images):
        path = Path(folder) / classes[i % len(classes)] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def grey_images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 9), dtype=np.uint8)


def place_faces(place, **values):
    np.save("faces.npy", grey_images(80))
    place(source="array", path="faces.npy", **values)


def test_memory_does_not_grow_with_the_number_of_images(place):
    peaks = {}
    for count in (15_000, 15_000, 60_000):  # the first time, modules are loaded too
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        np.savez("images.npz", images=images, labels=np.arange(count) % 10)
        place(source="array", path="images.npz")
        del images
        tracemalloc.start()
        run_main()
        _, peaks[count] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peaks[60_000] < peaks[15_000] + 2**20  # the larger set is 35 MB more


def test_the_default_digits_are_prepared(place, capsys):
    data = run_main()
    assert data.image_shape == (1, 28, 28)
    assert data.meta["source"] == "mnist-5k"
    assert data.meta["classes"] == list("0123456789")
    counts = {split: data.meta["splits"][split]["count"] for split in SPLITS}
    assert sum(counts.values()) == 5000
    assert data.meta["values"]["kind"] == "near-binary"
    assert data.meta["values"]["suitable_likelihoods"].startswith("bernoulli (train.binarize: dynamic)")
    assert counts["val"] == pytest.approx(500, abs=70)
    assert counts["test"] == pytest.approx(500, abs=70)
    assert np.bincount(data.train.labels).tolist() == data.meta["splits"]["train"]["class_counts"]
    suited, line = capsys.readouterr().out.splitlines()
    assert suited.startswith("prepare: near-binary values suit model.likelihood: bernoulli (train.binarize: dynamic)")
    assert line.startswith(f"prepare: {counts['train']:,} train, {counts['val']} val, {counts['test']} test images")
    assert line.endswith(f"of 1x28x28 (near-binary) from mnist-5k -> data/prepared (sha256 {data.sha256[:8]}...)")


def test_the_same_images_give_the_same_hash_and_another_seed_another(place):
    place_faces(place)
    first, again = run_main().sha256, run_main().sha256
    place(seed=1)
    assert first == again != run_main().sha256


def test_every_image_is_kept_once_and_copies_share_a_side(place):
    images = grey_images(60)
    put_images("images", np.concatenate([images, images[::-1]]))
    place(source="images", path="images", val_fraction=0.3, test_fraction=0.3)
    data = run_main()
    sides = [{image.tobytes() for image in getattr(data, split).images} for split in SPLITS]
    assert sum(len(side) for side in sides) == 60
    assert set.union(*sides) == {image.tobytes() for image in images}
    assert sum(len(getattr(data, split).images) for split in SPLITS) == 120


def test_labels_follow_their_images_from_class_folders(place):
    images = grey_images(90)
    put_images("images", images, ("cat", "dog", "eel"))
    place(source="images", path="images", val_fraction=0.3, test_fraction=0.3)
    data = run_main()
    expected = {image.tobytes(): i % 3 for i, image in enumerate(images)}
    assert data.meta["classes"] == ["cat", "dog", "eel"]
    for split in SPLITS:
        part = getattr(data, split)
        assert [expected[image.tobytes()] for image in part.images] == part.labels.tolist()


def test_bad_files_are_skipped_counted_and_listed(place, capsys):
    put_images("images", grey_images(30))
    Path("images/007.png").write_bytes(Path("images/007.png").read_bytes()[:60])
    Path("images/readme.txt").write_text("hello")
    place(source="images", path="images", on_bad_image="skip", val_fraction=0.3, test_fraction=0.3)
    data = run_main()
    assert [item["file"] for item in data.meta["skipped"]] == ["images/007.png", "images/readme.txt"]
    assert data.meta["skipped"][1]["reason"] == "not a PNG, JPEG, WebP or BMP image"
    assert sum(data.meta["splits"][split]["count"] for split in SPLITS) == 29
    assert "2 files skipped" in capsys.readouterr().err


def test_floats_become_levels_and_the_rounding_error_is_kept(place, capsys):
    np.save("a.npy", (grey_images(50) // 2 + np.linspace(0, 0.35, 50)[:, None, None]) / 255)
    place(source="array", path="a.npy", val_fraction=0.3, test_fraction=0.3)
    data = run_main()
    assert data.meta["rounding_error"] == pytest.approx(0.35 / 255)
    assert {image.tobytes() for image in data.train.images} <= {image.tobytes() for image in grey_images(50) // 2}
    assert "largest rounding error 0.0014 of the range" in capsys.readouterr().out


def test_zeros_and_ones_in_uint8_are_warned_of(place, capsys):
    np.save("a.npy", grey_images(50) % 2)
    place(source="array", path="a.npy", val_fraction=0.3, test_fraction=0.3)
    run_main()
    assert "no value is above 1 of 255" in capsys.readouterr().err


def test_images_are_resized_and_coloured_as_params_say(place):
    place_faces(place, image_size=[10, 12], color="rgb")
    assert run_main().image_shape == (3, 10, 12)


def test_a_relative_root_starts_at_the_repository_that_dvc_names(place, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stage, "open_source", lambda name, **options: asked.append(options["root"]))
    params = Params.model_validate(YAML(typ="safe").load((ROOT / "params.yaml").read_text())).prepare
    stage.open_from_params(params)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    stage.open_from_params(params)
    stage.open_from_params(params.model_copy(update={"root": "/somewhere"}))
    assert asked == [Path("data/torchvision"), tmp_path / "data/torchvision", Path("/somewhere")]


def test_train_images_bounds_the_training_split_alone(place):
    place_faces(place)
    everything = run_main()
    place_faces(place, train_images=7)
    few = run_main()
    assert np.array_equal(few.train.images, everything.train.images[:7])
    assert np.array_equal(few.val.images, everything.val.images)
    assert np.array_equal(few.test.images, everything.test.images)
    assert few.meta["splits"]["train"]["count"] == 7
    place_faces(place, train_images=1000)
    assert run_main().sha256 == everything.sha256


def test_held_out_labels_are_in_no_split_but_in_an_array_of_their_own(place, capsys):
    images = grey_images(90)
    put_images("images", images, ("cat", "dog", "eel"))
    place(source="images", path="images", val_fraction=0.3, test_fraction=0.3)
    whole = run_main()
    capsys.readouterr()
    place(source="images", path="images", val_fraction=0.3, test_fraction=0.3, held_out_labels=["dog"])
    data = run_main()
    assert {image.tobytes() for image in data.held_out.images} == {image.tobytes() for image in images[1::3]}
    assert data.held_out.labels.tolist() == [1] * 30
    for split in SPLITS:
        before, after = getattr(whole, split), getattr(data, split)
        np.testing.assert_array_equal(after.images, before.images[before.labels != 1])
    assert data.meta["splits"]["held_out"]["class_counts"] == [0, 30, 0]
    assert data.sha256 != whole.sha256
    assert data.meta["values"]["mean"] == pytest.approx(images[np.arange(90) % 3 != 1].mean())
    assert " test, 30 held_out images of 1x8x9 (grey) from images" in capsys.readouterr().out


def test_where_nothing_is_held_out_there_is_no_file_of_it(place):
    place_faces(place)
    assert run_main().held_out is None
    assert not list(Path("data/prepared").glob("held_out*"))


def test_an_unknown_held_out_label_ends_in_one_line(place):
    put_images("images", grey_images(30), ("cat", "dog", "eel"))
    place(source="images", path="images", held_out_labels=["dgo"])
    assert_fails_in_one_line("held_out_labels.0 is 'dgo'; expected one of cat, dog, eel", "data/prepared")
    assert not Path("data/prepared").exists()


def test_a_held_out_label_without_images_is_refused(place):
    put_images("images", grey_images(30), ("cat", "dog", "eel"))
    for file in Path("images/dog").iterdir():
        file.write_text("not an image")
    place(source="images", path="images", held_out_labels=["dog"], on_bad_image="skip")
    with pytest.raises(UserError, match=r"prepare\.held_out_labels: none of the 20 images has such a label"):
        stage.main()


def test_an_empty_split_names_param_and_count(place):
    np.save("a.npy", grey_images(4))
    place(source="array", path="a.npy", val_fraction=0.001, test_fraction=0.1)
    with pytest.raises(UserError, match=r"prepare\.val_fraction is 0\.001, and none of the 4 images fell to val"):
        stage.main()
    assert not Path("data/prepared").exists()


def test_only_bad_files_are_an_error_even_when_skipped(place):
    for i in range(40):
        Path("images").mkdir(exist_ok=True)
        Path(f"images/{i}.png").write_text("hello")
    place(source="images", path="images", on_bad_image="skip")
    with pytest.raises(UserError, match=r"none of the 40 files is an image; images/0\.png: not a PNG"):
        stage.main()


def test_a_failure_keeps_what_an_earlier_run_wrote(place):
    place_faces(place)
    before = run_main().sha256
    place(source="images", path="nowhere")
    with pytest.raises(UserError, match="nowhere"):
        stage.main()
    assert open_prepared("data/prepared").sha256 == before
    assert [path.name for path in Path("data").iterdir()] == ["prepared"]


def run_in_a_shell(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.prepare", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_fails_in_one_line(expected, *arguments):
    result = run_in_a_shell(*arguments)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr


def test_a_bad_image_late_in_a_folder_ends_in_one_line_with_nothing_written(place):
    put_images("images", grey_images(100))
    Path("images/099.png").write_bytes(Path("images/099.png").read_bytes()[:60])
    place(source="images", path="images")
    assert_fails_in_one_line("images/099.png: cannot be decoded", "data/prepared")
    assert list(Path("data").iterdir()) == []


def test_an_empty_folder_ends_in_one_line(place):
    Path("images").mkdir()
    place(source="images", path="images")
    assert_fails_in_one_line("prepare.path: images holds no images", "data/prepared")


def test_a_missing_argument_is_named(place):
    result = run_in_a_shell()
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("the following arguments are required: prepared\n")


def test_a_run_without_a_terminal_prints_two_lines(place):
    np.save("a.npy", grey_images(60))
    place(source="array", path="a.npy")
    result = run_in_a_shell("data/prepared")
    assert (result.returncode, result.stderr, result.stdout.count("\n")) == (0, "", 2)
    assert json.loads(Path("data/prepared/meta.json").read_text())["classes"] is None


@pytest.mark.skipif(not (SHARED / "frey_face.npz").is_file(), reason=f"frey_face.npz is not in {SHARED}")
def test_the_frey_faces_are_prepared(place):
    place(source="array", path=str(SHARED / "frey_face.npz"))
    data = run_main()
    assert data.image_shape == (1, 28, 20)
    assert sum(data.meta["splits"][split]["count"] for split in SPLITS) == 1965
    assert data.meta["rounding_error"] == 0
