"""Asks a server's models through the client of examples/triton: HOST:PORT FOLDER, where FOLDER has MODEL.npz files.

The arrays of MODEL.npz are the inputs; the outputs go to MODEL.outputs.npz beside it.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

_file = Path(__file__).parents[2] / "examples" / "triton" / "client.py"
_spec = importlib.util.spec_from_file_location("client", _file)
client = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(client)

server, folder = sys.argv[1:]
with triton.InferenceServerClient(server) as connection:
    for model in ("sampler", "decoder", "encoder", "scorer"):
        with np.load(f"{folder}/{model}.npz") as rows:
            np.savez(f"{folder}/{model}.outputs.npz", **client.infer(connection, model, **rows))
