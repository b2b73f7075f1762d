"""What a person does with the explorer, and what they see."""

import base64
import functools
import http.server
import json
import socket
import threading
from contextlib import contextmanager

import numpy as np
import uvicorn
from PIL import Image

from pipeline.runtime.server.app import create_app
from pipeline.runtime.server.settings import Settings

STARTED = "document.querySelector('main')?.hidden === false && location.hash.length > 1"
OPENING_SEED = 22  # of a link that names none
CODE = "new URLSearchParams(location.hash.slice(1)).get('z')"


class Explorer:
    """The page in a tab of the browser."""

    def __init__(self, tab, address, fragment="") -> None:
        self.tab = tab
        tab.send("Page.navigate", url="about:blank")
        tab.send("Page.navigate", url=f"{address}/{fragment}")

    def wait(self):
        """Until the page is drawn."""
        self.tab.until(STARTED)
        return self

    def text(self, selector):
        return self.tab.run(f"document.querySelector({selector!r}).textContent.trim()")

    def value(self, selector):
        return self.tab.run(f"document.querySelector({selector!r}).value")

    def click(self, selector):
        self.tab.run(f"document.querySelector({selector!r}).click()")

    def enter(self, selector, value):
        """Type a value into a field, and leave it."""
        self.tab.run(
            f"""(() => {{ const field = document.querySelector({selector!r}); field.value = {str(value)!r};
            for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind)); }})()"""
        )

    def pixels(self, canvas="picture", channels=3):
        """uint8 [H, W, channels] of a canvas."""
        height, width, data = self.tab.run(
            f"""(() => {{
                const canvas = document.getElementById({canvas!r}), {{ height, width }} = canvas;
                const copy = new OffscreenCanvas(width, height).getContext('2d', {{ willReadFrequently: true }});
                copy.drawImage(canvas, 0, 0);
                return [height, width, [...copy.getImageData(0, 0, width, height).data]];
            }})()"""
        )
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :channels]

    def code(self):
        """The z that the address bar holds: float32 [latent_dim]."""
        self.tab.until(f"{CODE} !== null")
        text = self.tab.run(CODE)
        return np.frombuffer(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "<f4")

    def open_code(self, z):
        """Follow a link to a code, float32 [latent_dim]."""
        text = base64.urlsafe_b64encode(z.tobytes()).decode().rstrip("=")
        self.tab.run(f"location.hash = 'z={text}'")
        self.settle()

    def slider(self, dimension):
        """The selector of a dimension's slider, wherever it stands."""
        return f"#sliders input[data-dimension='{dimension}']"

    def settle(self):
        """Until nothing is being computed and the address is written."""
        pause = "new Promise((next) => setTimeout(next, 150))"  # longer than the page waits for another change
        self.tab.run(pause)
        self.tab.until("!document.querySelector('[aria-busy=true]')")
        self.tab.run(pause)


def shown(page, sampler):
    return page.pixels(channels=sampler.image_shape[2])


def assert_same(pixels, expected):
    """Within one grey level, as rounding may fall in another runtime."""
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def own_image(sampler, folder):
    """A file of the model's size, which the browser need not stretch, and its pixels [H, W, C]."""
    pixels = np.random.default_rng(0).integers(0, 256, sampler.image_shape, np.uint8)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(folder / "own.png")
    return folder / "own.png", pixels


def drop(page, *files):
    """Let go of files over the page."""
    contents = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    page.tab.run(
        f"""(() => {{ const dataTransfer = new DataTransfer();
        for (const [name, content] of {json.dumps(contents)}) {{
            const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
            dataTransfer.items.add(new File([bytes], name, {{ type: 'image/png' }}));
        }}
        document.body.dispatchEvent(new DragEvent('drop', {{ dataTransfer, bubbles: true }})); }})()"""
    )


@contextmanager
def serve_model(sampler, **settings):
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(sampler, Settings(**settings))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    running = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    running.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        running.join(20)


@contextmanager
def serve_folder(folder):
    """What `python -m http.server` does."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
