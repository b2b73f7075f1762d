import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from npm import install, need

from pipeline.commands.options import DEMO_FOLDER
from pipeline.runtime import Sampler

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Model:
    """An export folder and what opens it in Python."""

    folder: Path
    sampler: Sampler


@pytest.fixture(params=["mlp", "conv", "demo"])
def model(request):
    """Two small models with random weights, and a trained one."""
    return open_model(DEMO_FOLDER if request.param == "demo" else request.getfixturevalue(request.param).folder)


def open_model(folder):
    return Model(folder, Sampler(folder / "sampler.onnx", "cpu", threads=1))


@pytest.fixture(scope="session")
def node_example(tmp_path_factory):
    return installed("node", tmp_path_factory)


@pytest.fixture(scope="session")
def web_example(tmp_path_factory):
    return installed("web", tmp_path_factory)


@pytest.fixture(scope="session")
def browse(web_example, tmp_path_factory):
    """Opens a page of this folder beside the web example, in headless Chromium; returns what the page reports.

    `files` are put beside it: name -> content.
    """
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None) or need(BROWSERS[0])

    def open_page(page, files):
        folder = tmp_path_factory.mktemp("browser")
        site = make_site(web_example, folder / "site", page, files)
        with served(site) as (address, reports), running(chromium, f"{address}/{page}", folder / "profile"):
            report = reports.get(timeout=60)
        assert "error" not in report, report["error"]
        return report

    return open_page


def installed(name, tmp_path_factory):
    """A copy of the example with its packages, and the scripts that drive it."""
    folder = install(name, tmp_path_factory.mktemp(name) / name)
    for script in ("graphs.mjs", "run.mjs"):
        shutil.copy(HERE / script, folder)
    return folder


def make_site(web_example, site, page, files):
    shutil.copytree(web_example, site, ignore=shutil.ignore_patterns("node_modules"))
    (site / "node_modules").symlink_to(web_example / "node_modules")
    shutil.copy(HERE / page, site)
    for name, content in files.items():
        (site / name).write_bytes(content)
    return site


@contextmanager
def served(site):
    """A static server on a free port of loopback; what pages post to it comes out of the queue."""
    reports = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self):
            reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", reports
        finally:
            server.shutdown()


@contextmanager
def running(chromium, address, profile):
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [chromium, *options, f"--user-data-dir={profile}", address]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        browser.terminate()
        browser.wait(timeout=30)
