"""What a server is sent and what it answers, in the forms that it knows."""

import io
import threading

import numpy as np
from PIL import Image

RAW = {"accept": "application/octet-stream"}
NPY = {"accept": "application/x-npy"}
JSON = {"accept": "application/json"}
IS_JSON = {"content-type": "application/json"}
IS_NPY = {"content-type": "application/x-npy"}


def levels(a, b):
    """Largest difference in grey levels."""
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).max()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def picture(kind, size=(8, 8), mode="L"):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def many_scans(scans, size=(8, 8)):
    """A progressive JPEG whose last scan is repeated until there are so many."""
    file = io.BytesIO()
    Image.new("L", size, 200).save(file, "JPEG", progressive=True)
    head, marker, last = file.getvalue()[:-2].rpartition(b"\xff\xda")
    return head + (marker + last) * (scans - head.count(marker)) + b"\xff\xd9"


def noting_threads(monkeypatch, module, name):
    """Wraps a function of a module; gives the list of the threads in which it was called."""
    function, threads = getattr(module, name), []

    def noting(*arguments):
        threads.append(threading.get_ident())
        return function(*arguments)

    monkeypatch.setattr(module, name, noting)
    return threads


def loop_thread(client):
    """The thread of a client's event loop."""
    return client.portal.call(threading.get_ident)


def loaded(response):
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.content), allow_pickle=False)


def refused(response, status, reason):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert reason in response.json()["error"]
    assert "\n" not in response.json()["error"]
