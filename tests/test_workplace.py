import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import workplace as workplaces
from pipeline.files import atomic_directory
from pipeline.workplace import workplace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")

WRITE_AND_WAIT = """
import sys, time
from pipeline.files import atomic_directory

with atomic_directory(sys.argv[1]) as beside:
    (beside / "half").touch()
    print(beside, flush=True)
    time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing `out`."""
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_what_a_killed_process_left_goes_when_the_next_one_writes(tmp_path, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    [left] = names(tmp_path)
    assert left.startswith(".out.being-written.")
    with atomic_directory(tmp_path / "out") as beside:
        assert names(tmp_path) == [beside.parent.name]
    assert names(tmp_path) == ["out"]


def test_a_folder_in_which_another_process_is_at_work_stays(tmp_path, writer):
    [theirs] = names(tmp_path)
    with atomic_directory(tmp_path / "out"):
        pass
    assert names(tmp_path) == [theirs, "out"]
    assert names(tmp_path / theirs / "out") == ["half"]


def test_a_folder_whose_replacement_was_killed_half_way_is_brought_back(tmp_path):
    (tmp_path / ".out.being-written.abcdefgh" / "replaced").mkdir(parents=True)
    (tmp_path / ".out.being-written.abcdefgh" / "replaced" / "old").touch()
    with workplace(tmp_path / "out"):
        assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]


def test_hidden_folders_of_other_names_and_links_stay(tmp_path):
    kept = [
        ".out",
        ".out.20250131",
        *(f".{end}" for end in ("out.being-written.abcdefgh.d", "in.being-written.abcdefgh")),
    ]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".out.being-written.linkname").symlink_to(tmp_path / ".out", target_is_directory=True)
    (tmp_path / ".out.being-written.filename").touch()
    with workplace(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted([*kept, ".out.being-written.linkname", ".out.being-written.filename"])


def test_a_name_with_a_pattern_in_it_is_no_pattern(tmp_path):
    (tmp_path / ".out.being-written.abcdefgh").mkdir()
    with workplace(tmp_path / "*"):
        pass
    assert names(tmp_path) == [".out.being-written.abcdefgh"]


def test_a_folder_that_another_process_took_for_one_left_behind_is_made_anew(tmp_path, monkeypatch):
    lock, taken = workplaces._lock, []

    def take_the_first(folder, *, wait):
        if not taken:
            taken.append(folder)
            folder.rmdir()
        return lock(folder, wait=wait)

    monkeypatch.setattr(workplaces, "_lock", take_the_first)
    with workplace(tmp_path / "out") as folder:
        assert folder.is_dir() and folder != taken[0]


def test_without_locks_a_folder_is_written_and_none_is_removed(tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".out.being-written.abcdefgh").mkdir()
    with atomic_directory(tmp_path / "out") as beside:
        (beside / "new").touch()
    assert names(tmp_path) == [".out.being-written.abcdefgh", "out"]
    assert names(tmp_path / "out") == ["new"]


def open_descriptors():
    """How many, on Linux."""
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def test_threads_that_work_beside_one_folder_at_once_do_not_meet(tmp_path):
    descriptors = open_descriptors()
    failures = []

    def write(content):
        try:
            for _ in range(20):
                with workplace(tmp_path / "out") as folder:
                    (folder / "file").write_text(content)
                    if (folder / "file").read_text() != content:
                        failures.append(content)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert names(tmp_path) == []
    assert open_descriptors() == descriptors
