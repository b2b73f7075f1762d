"""A copy of the repository with small data and a history of its own, in which DVC and git run as a user runs them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from mlflow.tracking import MlflowClient
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COPIED = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "pipeline", "data/images")


class Repository:
    """Made in an empty `folder`; DVC and git take `home` for the user's."""

    def __init__(self, folder, home):
        self.folder, self.store = folder, folder / "mlflow.db"
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_", "GIT_"))}
        self._environment = ours | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "DVC_SITE_CACHE_DIR": str(home / "dvc"),
            "DVC_NO_ANALYTICS": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **{f"GIT_{role}_NAME": "tester" for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_EMAIL": "tester@example.org" for role in ("AUTHOR", "COMMITTER")},
        }
        for name in COPIED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        shutil.copy(ROOT / "params.yaml", folder)

    def run(self, *command):
        """Run a command to its end; returns what it printed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *command, log):
        """Start a command in a process group of its own; what it prints goes to a file."""
        with open(log, "w", encoding="utf-8") as file:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def commit(self, message):
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def change(self, section, **values):
        self.edit("params.yaml", lambda content: content[section].update(values))

    def edit(self, name, change):
        """Let `change` edit the content of a YAML file."""
        content = YAML(typ="safe").load((self.folder / name).read_text())
        change(content)
        with (self.folder / name).open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(content, file)

    def rows(self):
        """The rows of the store at the repository's root, the oldest first."""
        client = MlflowClient(f"sqlite:///{self.store}")
        return client.search_runs([client.get_experiment_by_name("vae").experiment_id], order_by=["start_time ASC"])
