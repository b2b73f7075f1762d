import subprocess
from pathlib import Path

from pipeline.tracking.provenance import provenance


def git(*arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_the_revision_is_known_and_code_alone_makes_it_dirty(tmp_path, monkeypatch):
    """Every experiment changes params, and its run says which."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    for name in ("params.yaml", "dvc.yaml"):
        Path(name).write_text("a: 1\n")
    git("add", ".")
    git("commit", "-qm", "start")
    Path("metrics.json").write_text("{}")
    clean = {"git_revision": git("rev-parse", "HEAD"), "git_dirty": "false"}
    assert provenance("9a3a", "da7a") == {"params_hash": "9a3a", "data_sha256": "da7a", **clean}
    Path("params.yaml").write_text("a: 2\n")
    assert provenance("9a3a", "da7a")["git_dirty"] == "false"
    Path("pipeline").mkdir()
    for code in (Path("dvc.yaml"), Path("pipeline/new.py")):
        code.write_text("a = 2\n")
        assert provenance("9a3a", "da7a")["git_dirty"] == "true"
        git("add", ".")
        git("commit", "-qm", code.name)
        assert provenance("9a3a", "da7a")["git_dirty"] == "false"


def test_without_git_the_revision_is_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert provenance("9a3a", "da7a")["git_revision"] == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance("9a3a", "da7a") == {
        "params_hash": "9a3a",
        "data_sha256": "da7a",
        "git_revision": "unknown",
        "git_dirty": "unknown",
    }
