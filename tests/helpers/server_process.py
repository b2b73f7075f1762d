"""`vae serve` in a process of its own, with limits that a test need not wait long for.

As a script: `server_process.py FOLDER SETTINGS`. Each run of the decoder says `running` and waits for a line on stdin.
"""

import gc
import json
import subprocess
import sys
from contextlib import contextmanager


class ServerProcess:
    """A running server: `address` is HOST:PORT, `frozen` how many objects it keeps from the garbage collector."""

    def __init__(self, process):
        self.process = process
        self.address = process.stdout.readline().strip().removeprefix("http://")
        self.frozen = int(process.stdout.readline())

    def wait_for_run(self):
        """Until the decoder runs."""
        assert self.process.stdout.readline() == "running\n"

    def go_on(self):
        """Let the decoder's run end."""
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()


@contextmanager
def server_process(folder, **settings):
    command = [sys.executable, __file__, folder, json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield ServerProcess(process)
        finally:
            process.kill()


@contextmanager
def vae_serve(folder):
    """The address, HOST:PORT, of the command as a person starts it."""
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--model", folder, "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split("http://")[1].strip()
        finally:
            process.terminate()


def main(folder, settings):
    from pipeline.runtime import Sampler
    from pipeline.runtime.server.app import create_app
    from pipeline.runtime.server.run import serve
    from pipeline.runtime.server.settings import Settings

    app = create_app(Sampler(folder, "cpu"), Settings(**json.loads(settings)))
    batcher = app.state.service._batchers["decoder"]
    run = batcher._run

    def held(rows):
        print("running", flush=True)
        sys.stdin.readline()
        return run(rows)

    batcher._run = held
    serve(app, "127.0.0.1", 0, lambda address: print(address, gc.get_freeze_count(), sep="\n", flush=True))
    assert not {"torch", "mlflow", "dvc", "onnx"} & set(sys.modules)


if __name__ == "__main__":
    main(*sys.argv[1:])
