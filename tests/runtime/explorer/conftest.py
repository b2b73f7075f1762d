from dataclasses import dataclass

import pytest
from chromium import Browser, find_chromium
from explorer import Explorer, serve_folder, serve_model
from missing import skip_unless_ci
from npm import install

from pipeline.runtime import Sampler
from pipeline.runtime.explorer.folder import write_explorer


@dataclass(frozen=True)
class Site:
    """Where an explorer is served, and what it shows, in Python."""

    address: str
    sampler: Sampler


@pytest.fixture(scope="session")
def sampler(mlp):
    return Sampler(mlp.folder, "cpu", threads=1)


@pytest.fixture(scope="module", params=["server", "folder"])
def site(request, tmp_path_factory):
    """The same page, over the server (grey images) and as a static folder (colour)."""
    if request.param == "server":
        sampler = request.getfixturevalue("sampler")
        with serve_model(sampler) as address:
            yield Site(address, sampler)
        return
    model, folder = request.getfixturevalue("conv").folder, tmp_path_factory.mktemp("site") / "explorer"
    write_explorer(folder, model, request.getfixturevalue("dist"))
    with serve_folder(folder) as address:
        yield Site(address, Sampler(model, "cpu", threads=1))


@pytest.fixture
def visit(tab, site):
    """Opens the page at a link, drawn."""
    return lambda fragment="": Explorer(tab, site.address, fragment).wait()


@pytest.fixture(params=["server", "folder"])
def page(request, tab, model, tmp_path):
    """The page of a `model` with classes, the module's own, at its class 1: over the server and as a static folder."""
    if request.param == "server":
        serving = serve_model(Sampler(model, "cpu", threads=1))
    else:
        write_explorer(tmp_path / "site", model, request.getfixturevalue("dist"))
        serving = serve_folder(tmp_path / "site")
    with serving as address:
        yield Explorer(tab, address, "#seed=3&label=1").wait()


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """onnxruntime-web as npm installs it for the web example."""
    return install("web", tmp_path_factory.mktemp("npm") / "web") / "node_modules" / "onnxruntime-web" / "dist"


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if not find_chromium():
        skip_unless_ci("no chromium is installed")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    opened.resize(1280, 900)
    yield opened
    opened.close()


@pytest.fixture
def tab(browser):
    """The browser, whose console stays silent but for what a test takes out of `problems`."""
    browser.problems.clear()
    yield browser
    assert browser.problems == []
