"""A server that asks for a token: the page itself loads, and asks for it."""

import httpx
import pytest
from explorer import OPENING_SEED, Explorer, serve_model

from pipeline.runtime.server.page import FILES

AGREED = "correct horse"
REFUSED = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
ASKED = "document.getElementById('token-form')?.hidden === false"


@pytest.fixture(scope="module")
def address(sampler):
    with serve_model(sampler, token=AGREED) as served:
        yield served


@pytest.fixture
def visit(tab, address):
    """Opens the page in a tab that knows no token yet."""

    def visiting():
        page = Explorer(tab, address)
        tab.until("document.getElementById('token-form') !== null")
        return page

    Explorer(tab, address)
    tab.until(ASKED)
    tab.run("sessionStorage.clear()")
    yield visiting
    tab.run("sessionStorage.clear()")


def give(page, token):
    page.enter("#token", token)
    page.click("#token-form button")


def test_the_page_asks_for_the_token_and_shows_the_model(visit, sampler):
    page = visit()
    page.tab.until(ASKED)
    assert page.tab.run("document.activeElement.id") == "token"
    give(page, AGREED)
    page.wait()
    assert (page.pixels(channels=1) == sampler.sample(1, OPENING_SEED)[0]).all()
    page.enter(page.slider(0), 2)
    page.settle()
    assert page.text("#status") == ""


def test_another_token_is_refused_and_asked_for_again(visit):
    page = visit()
    page.tab.until(ASKED)
    give(page, "wrong")
    page.tab.until("document.getElementById('token-wrong').textContent == 'the server does not know this token'")
    give(page, "café")
    assert page.text("#token-wrong") == "a token is printable ASCII"
    give(page, AGREED)
    page.wait()
    assert page.tab.run("document.getElementById('token-form').hidden")
    page.tab.problems.remove(REFUSED)  # the one request that carried another token


def test_the_token_lasts_for_the_tab_and_stands_in_no_link(visit):
    page = visit()
    page.tab.until(ASKED)
    give(page, AGREED)
    page.wait()
    again = visit().wait()
    assert again.tab.run("document.getElementById('token-form').hidden")
    assert AGREED not in again.tab.run("decodeURIComponent(location.href)")


@pytest.mark.parametrize("path", FILES)
def test_the_page_is_no_secret(address, path):
    assert httpx.get(address + path).status_code == 200


@pytest.mark.parametrize("path", ["/metadata", "/sample", "//", "/index.html"])
def test_everything_else_is(address, path):
    assert httpx.get(address + path).status_code == 401
