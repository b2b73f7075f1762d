import os
import subprocess
import sys

import pytest

TELL = """
import importlib, os, sys

class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "sklearn"):
            print(name, os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watcher())
importlib.import_module(sys.argv[1])
"""  # the first of those that bring an OpenMP of their own ends the process


def first_to_read(module, **environment):
    """Which package that has an OpenMP the module loads first, and the count that it finds."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    kept |= {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, "-c", TELL, module]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=kept)
    return done.stdout.split()


@pytest.mark.parametrize("stage", ["pipeline.train", "pipeline.evaluate", "pipeline.export", "pipeline.paper.__main__"])
def test_a_stage_sets_how_soon_idle_threads_sleep_before_torch_is_loaded(stage):
    assert first_to_read(stage) == ["torch", "3000"]


def test_what_the_environment_says_is_kept():
    assert first_to_read("pipeline.train", GOMP_SPINCOUNT="77") == ["torch", "77"]
    assert first_to_read("pipeline.train", OMP_WAIT_POLICY="active") == ["torch", "None"]


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux alone")
def test_torch_reads_the_count():
    code = "import pipeline.threads, torch"
    environment = os.environ | {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert "GOMP_SPINCOUNT = '3000'" in done.stderr
