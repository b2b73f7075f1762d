"""What `make` refuses before it starts anything; `.venv` is taken to be ready."""

import shutil
import subprocess
from pathlib import Path

import pytest
from missing import skip_unless_ci

ROOT = Path(__file__).parents[1]


def make(*arguments):
    if not shutil.which("make"):
        skip_unless_ci("no make is installed")
    command = ["make", "--directory", ROOT, "--no-print-directory", "--old-file=.venv/.ready", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["results", "DATA=/data", "RECIPE=nope"], "DATA is for make paper alone; expected SET=prepare.root=FOLDER"),
        (["sweep", "DATA=/data"], "DATA is for make paper alone; expected SET=prepare.root=FOLDER"),
        (["results"], "RECIPE is empty; expected one of: "),
    ],
)
def test_results_that_cannot_be_reproduced_so_are_refused_in_one_line(arguments, expected):
    ended = make(*arguments)
    assert ended.returncode == 2
    assert ended.stdout.startswith(f"error: {expected}")
    assert ended.stdout.count("\n") == 1
