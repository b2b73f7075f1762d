"""Examples with what npm installs for them. What is missing skips a test; in CI, it fails."""

import shutil
import subprocess
from pathlib import Path

from missing import skip_unless_ci

EXAMPLES = Path(__file__).parents[2] / "examples"
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH")
INSTALL = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1"]


def install(name, folder):
    """Copy an example into `folder`, with what its lock file names; the checkout stays as it is."""
    need("node")
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("node_modules", "*.onnx"))
    run = subprocess.run([need("npm"), *INSTALL], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode and any(code in run.stderr for code in UNREACHABLE):
        skip_unless_ci("the npm registry cannot be reached")
    assert not run.returncode, run.stderr
    return folder


def need(program):
    """The path of a program."""
    found = shutil.which(program)
    if found is None:
        skip_unless_ci(f"{program} is not installed")
    return found
