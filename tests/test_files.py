import errno
import math
import os
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError, run_stage
from pipeline.files import (
    atomic_directory,
    atomic_file,
    expect_new_folder,
    expect_own_folder,
    read_csv,
    read_json,
    sha256_of,
    write_csv,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def no_space(*_arguments, **_named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stderr_of(stage, capsys):
    """What a stage that fails says to the person at the terminal."""
    with pytest.raises(SystemExit) as exit_:
        run_stage(stage)
    assert exit_.value.code == 1
    return capsys.readouterr().err


def test_a_folder_replaces_the_old_one_of_its_kind_whole(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("marker", "old"):
        (tmp_path / "out" / name).touch()
    with atomic_directory(tmp_path / "out", "marker") as beside:
        (beside / "new").write_text("1")
        assert names(tmp_path / "out") == ["marker", "old"]
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        (None, "holds images; expected a folder that is new or empty$"),
        ("meta.json", "holds images; expected .* or empty, or that of an earlier run, with meta.json in it$"),
    ],
)
def test_a_folder_of_something_else_is_refused_before_the_work_and_kept(tmp_path, marker, expected):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / ".gitignore").touch()
    with pytest.raises(UserError, match=expected), atomic_directory(tmp_path / "data", marker):
        pytest.fail("the work was begun")
    assert names(tmp_path / "data") == [".gitignore", "images"]


@pytest.mark.parametrize("place", [".", "..", "../empty"])
def test_the_working_directory_and_those_above_it_are_not_replaced(tmp_path, monkeypatch, place):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with (
        pytest.raises(UserError, match=f"{place}: is the working directory, or above it; expected another folder"),
        atomic_directory(place, "marker"),
    ):
        pytest.fail("the work was begun")
    assert Path.cwd() == tmp_path / "empty"


def test_what_gitignore_says_of_a_folder_is_nothing_to_lose(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".gitignore").touch()
    with atomic_directory(tmp_path / "out") as beside:
        (beside / "new").touch()
    assert names(tmp_path / "out") == ["new"]


def test_a_link_to_a_folder_on_another_disk_stays_one(tmp_path):
    (tmp_path / "large" / "models").mkdir(parents=True)
    (tmp_path / "large" / "models" / "marker").touch()
    (tmp_path / "models").symlink_to(tmp_path / "large" / "models", target_is_directory=True)
    with atomic_directory(tmp_path / "models", "marker") as beside:
        (beside / "new").touch()
    assert (tmp_path / "models").is_symlink()
    assert names(tmp_path / "large" / "models") == ["new"]
    assert names(tmp_path / "large") == ["models"]


def test_a_folder_is_as_readable_as_any_other(tmp_path):
    with atomic_directory(tmp_path / "deep" / "out"):
        pass
    assert (tmp_path / "deep" / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_folder_and_nothing_beside_it(tmp_path, failure):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(failure), atomic_directory(tmp_path / "out", "old") as beside:
        (beside / "new").touch()
        raise failure
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["old"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path, failure):
    (tmp_path / "out.txt").write_text("old")
    with pytest.raises(failure), atomic_file(tmp_path / "out.txt") as beside:
        beside.write_text("new")
        raise failure
    assert names(tmp_path) == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "old"


def test_a_file_is_written_beside_its_place_with_its_suffix(tmp_path):
    with atomic_file(tmp_path / "deep" / "grid.png") as beside:
        assert (beside.parent, beside.suffix) == (tmp_path / "deep", ".png")
        beside.write_text("new")
    assert (tmp_path / "deep" / "grid.png").read_text() == "new"
    assert names(tmp_path / "deep") == ["grid.png"]


def test_a_file_where_a_folder_is_to_be_written_is_refused_and_kept(tmp_path):
    (tmp_path / "out").write_text("mine")
    expected = pytest.raises(UserError, match=r"out: is a file; expected a folder, or nothing")
    with expected, atomic_directory(tmp_path / "out"):
        pytest.fail("the work was begun")
    assert (tmp_path / "out").read_text() == "mine"
    assert names(tmp_path) == ["out"]


def test_a_folder_may_be_filled_where_nothing_is_lost(tmp_path):
    (tmp_path / "empty").mkdir()
    expect_new_folder(tmp_path / "empty")
    expect_new_folder(tmp_path / "nothing" / "there")
    assert names(tmp_path) == ["empty"]
    assert names(tmp_path / "empty") == []


@pytest.mark.parametrize("taken", ["full", "full/mine.txt"])
def test_a_folder_is_not_filled_where_something_stands(tmp_path, taken):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UserError, match=f"{taken}: already there; expected a folder that is new or empty"):
        expect_new_folder(tmp_path / taken)


def test_a_folder_where_a_file_is_to_be_written_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "metrics.json" / "mine").mkdir(parents=True)
    stderr = stderr_of(lambda: write_json(tmp_path / "metrics.json", {}), capsys)
    assert stderr == f"error: {tmp_path / 'metrics.json'}: Is a directory\n"
    assert names(tmp_path) == ["metrics.json"]


def test_a_file_among_the_parents_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "models").touch()

    def stage():
        with atomic_directory(tmp_path / "models" / "checkpoint"):
            pytest.fail("the work was begun")

    expected = "cannot be written (Not a directory); expected a place where a folder can be made"
    assert stderr_of(stage, capsys) == f"error: {tmp_path / 'models' / 'checkpoint'}: {expected}\n"


def test_a_full_disk_ends_in_one_line_that_names_the_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "metrics.json").write_text("{}")
    monkeypatch.setattr(Path, "write_text", no_space)
    stderr = stderr_of(lambda: write_json(tmp_path / "metrics.json", {"a": 1}), capsys)
    assert stderr == f"error: {tmp_path / 'metrics.json'}: No space left on device\n"
    assert (tmp_path / "metrics.json").read_text() == "{}"
    assert names(tmp_path) == ["metrics.json"]


def test_a_full_disk_ends_in_one_line_that_names_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Path, "write_bytes", no_space)

    def stage():
        with atomic_directory(tmp_path / "models") as beside:
            (beside / "weights").write_bytes(b"1")

    assert stderr_of(stage, capsys) == f"error: {tmp_path / 'models'}: No space left on device\n"
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["metrics.json", "deep/metrics.json"])
def test_a_refusal_names_what_was_to_be_written_and_not_the_hidden_file_beside_it(place, capsys):
    """Nobody, not even root, may make a file in /proc/self."""
    stderr = stderr_of(lambda: write_json(f"/proc/self/{place}", {}), capsys)
    assert stderr == f"error: /proc/self/{place.split('/')[0]}: No such file or directory\n"


def test_a_refused_folder_is_named_and_not_the_hidden_one_beside_it(capsys):
    def stage():
        with atomic_directory("/proc/self/models"):
            pytest.fail("the work was begun")

    expected = "cannot be written (No such file or directory); expected a place where a folder can be made"
    assert stderr_of(stage, capsys) == f"error: /proc/self/models: {expected}\n"


def test_whether_a_folder_can_be_written_is_found_without_leaving_anything(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "marker").touch()
    before = (tmp_path / "out").stat().st_mtime_ns
    expect_own_folder(tmp_path / "out", "marker")
    expect_own_folder(tmp_path / "deep" / "er" / "out", "marker")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").stat().st_mtime_ns == before


@pytest.mark.parametrize("place", ["taken/out", "taken/deep/out"])
def test_a_folder_below_a_file_is_refused_before_the_work(tmp_path, place):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match=rf"{place}: cannot be written \(Not a directory\); expected a place where"):
        expect_own_folder(tmp_path / place)
    assert names(tmp_path) == ["taken"]


def test_a_folder_that_the_system_will_not_have_made_is_refused_before_the_work(tmp_path, monkeypatch):
    def refuse(**_named):
        raise PermissionError(errno.EACCES, "Permission denied", "a hidden name")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(UserError, match=r"deep/out: cannot be written \(Permission denied\); expected a place where"):
        expect_own_folder(tmp_path / "deep" / "out")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("asked", "answer"), [("os.access", False), ("pathlib.Path.is_mount", True)])
def test_a_folder_that_cannot_be_moved_away_is_refused_before_the_work(tmp_path, monkeypatch, asked, answer):
    expect_own_folder(tmp_path / "out", "marker")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(asked, lambda *_: answer)
    with pytest.raises(UserError, match="out: is read-only or a mount point; expected a folder that can be moved and"):
        expect_own_folder(tmp_path / "out", "marker")
    assert names(tmp_path) == ["out"]


def test_a_refused_file_of_a_folder_is_named_where_it_was_to_stand(tmp_path, capsys):
    def stage():
        with atomic_directory(tmp_path / "models") as beside:
            (beside / "graphs" / "sampler.onnx").write_bytes(b"1")

    stderr = stderr_of(stage, capsys)
    assert stderr == f"error: {tmp_path}/models/graphs/sampler.onnx: No such file or directory\n"


def test_an_error_of_the_system_that_is_about_no_file_keeps_its_traceback():
    def stage():
        raise ConnectionError(errno.ECONNREFUSED, "refused")

    with pytest.raises(ConnectionError):
        run_stage(stage)


def test_a_users_mistake_is_one_line_and_exit_code_1(capsys):
    def stage():
        raise UserError("params.yaml: train.beta is -1.0; expected a number >= 0")

    assert stderr_of(stage, capsys) == "error: params.yaml: train.beta is -1.0; expected a number >= 0\n"


def test_an_interrupt_says_so_and_ends_with_its_own_code(capsys):
    def stage():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_:
        run_stage(stage)
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "stopped by the user\n"


def test_a_fault_of_ours_keeps_its_traceback():
    def stage():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stage(stage)


def test_json_comes_back_as_it_was_written(tmp_path):
    content = {"elbo": -101.25, "shape": [1, 28, 28], "name": "σ", "none": None}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_without_a_number_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"elbo": value})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "a.json: not found; expected a file that an earlier stage writes"),
        (b'{"a": ', "a.json: not readable as JSON"),
        (b"\xff\xfe", "a.json: not readable as JSON"),
        (b"[" * 100_000, "a.json: not readable as JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a.json: not readable as JSON"),
        (b"[1, 2]", "a.json: holds a JSON list; expected an object"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=expected) as error:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def test_rows_come_back_to_the_last_bit(tmp_path):
    rows = [{"epoch": 1.0, "val/elbo": -100.1 / 3}, {"epoch": 2.0, "val/elbo": sys.float_info.epsilon}]
    write_csv(tmp_path / "a.csv", rows)
    assert read_csv(tmp_path / "a.csv") == rows
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "epoch,val/elbo"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "a.csv: not found"),
        ("epoch,val/elbo\n1,many\n", "a.csv: not a table of numbers"),
        ("epoch,val/elbo\n1\n", "a.csv: not a table of numbers"),
        ("epoch\n1,2\n", "a.csv: not a table of numbers"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=expected):
        read_csv(tmp_path / "a.csv")


def test_the_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_an_output_that_cannot_be_replaced_stays_with_nothing_beside_it(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    move = Path.replace

    def refuse(path, target):
        if path.name == "out" and path.parent == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return move(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError), atomic_directory(tmp_path / "out", "old") as beside:
        (beside / "new").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["old"]
