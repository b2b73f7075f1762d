"""The bars, as a terminal of its own sees them."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

COMMANDS = {
    "encode": (["photos", "-o", "codes.npz"], "encoding", 12),
    "score": (["photos", "-o", "scores.csv"], "scoring", 12),
    "reconstruct": (["photos", "-o", "out"], "reconstructing", 12),
    "decode": (["z.npy", "-o", "decoded.png"], "decoding", 7),
    "interpolate": (["--seeds", "3,8", "--steps", "9", "-o", "walk.gif"], "decoding", 16),
    "sample": (["-n", "700", "-o", "many.npy"], "drawing", 700),
}


def on_a_terminal(arguments, folder):
    """What a terminal is sent on stderr, and stdout."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        out = process.stdout.read()
    sent = b""
    try:
        while part := os.read(ours, 2**16):
            sent += part
    except OSError:  # Linux ends a terminal whose other side is closed with EIO
        pass
    os.close(ours)
    assert not process.returncode, sent.decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sent.decode()), out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bar_counts_on_a_terminal(command, photos, tmp_path, mlp):
    np.save(tmp_path / "z.npy", np.zeros((7, mlp.metadata.latent_dim), np.float32))
    arguments, title, total = COMMANDS[command]
    sent, out = on_a_terminal([command, *arguments, "--model", str(mlp.folder), "--device", "cpu"], tmp_path)
    assert re.search(rf"{title} .* {total}/{total} ", sent)
    assert out.startswith(f"wrote {arguments[arguments.index('-o') + 1]}: ")
