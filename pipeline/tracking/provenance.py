"""Where a run came from, as its tags."""

import os
import subprocess


def provenance(params_hash: str, data_sha256: str) -> dict[str, str]:
    """Tags that say where a run came from: data, params, git revision, DVC experiment."""
    return {"data_sha256": data_sha256, "params_hash": params_hash, **_git_state(), **experiment_tags()}


def experiment_tags() -> dict[str, str]:
    """The name of the DVC experiment in which this process runs, if any."""
    experiment = os.environ.get("DVC_EXP_NAME")
    return {"dvc_exp_name": experiment} if experiment else {}


def _git_state() -> dict[str, str]:
    """The revision, and whether code differs from it: params and results do not count, which the run holds itself."""
    try:
        revision = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "pipeline", "dvc.yaml")
    except (OSError, subprocess.CalledProcessError):
        return {"git_revision": "unknown", "git_dirty": "unknown"}
    return {"git_revision": revision, "git_dirty": str(bool(changed)).lower()}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()
