"""What stands twice so that `vae --help` need not load the runtime, and DVC's own paths, are held equal here."""

import inspect
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.commands.options import EXPORT_FOLDER
from pipeline.commands.serve import serve
from pipeline.runtime import Sampler
from pipeline.runtime.server.settings import Settings

ROOT = Path(__file__).parents[2]


def default(function, name):
    return inspect.signature(function).parameters[name].default


def test_the_model_that_is_opened_unless_another_is_named_is_what_the_export_stage_writes():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    assert stages["export"]["outs"] == [EXPORT_FOLDER.as_posix()]
    assert default(Sampler, "path") == EXPORT_FOLDER.as_posix()
    assert f"pipeline.graphs.demo {EXPORT_FOLDER.as_posix()} " in (ROOT / "Makefile").read_text()


def test_serve_allows_as_many_images_of_a_request_as_the_server_does():
    assert default(serve, "max_images") == Settings().max_images
