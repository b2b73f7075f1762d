import signal
import subprocess
import sys
import threading

import pytest

from pipeline.errors import UserError, one_line, run_stage

# A shell starts what runs in the background with SIGINT ignored.
WRITE_AND_WAIT = """
import signal, sys, time
from pipeline.errors import run_stage
from pipeline.files import atomic_file

def main():
    with atomic_file(sys.argv[1]) as beside:
        beside.touch()
        print("writing", flush=True)
        time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
run_stage(main)
"""


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGTERM, 143, "stopped: SIGTERM\n"), (signal.SIGINT, 130, "stopped by the user\n")],
)
def test_a_stage_that_is_told_to_stop_says_so_and_leaves_nothing_half_written(tmp_path, number, code, line):
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path / "out.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        assert process.stderr.read() == line
    assert process.returncode == code
    assert not list(tmp_path.iterdir())


def test_what_a_signal_did_before_it_does_again_after_a_stage():
    before = signal.getsignal(signal.SIGTERM)
    run_stage(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stage_runs_in_a_thread_too(capsys):
    def refuse():
        raise UserError("params.yaml: train.beta is -1")

    codes = []

    def run():
        try:
            run_stage(refuse)
        except SystemExit as ended:
            codes.append(ended.code)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert codes == [1]
    assert capsys.readouterr().err == "error: params.yaml: train.beta is -1\n"


def test_the_text_of_an_error_is_told_in_one_line_of_bounded_length():
    assert one_line(ValueError("a\n  long\tone"), 6) == "a long"
    assert one_line(ValueError("a\n  long\tone")) == "a long one"
    assert one_line(ValueError()) == ""
