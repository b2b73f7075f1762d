import copy
import dataclasses

import numpy as np
import pytest
from explorer import Explorer, serve_model

SHOWN = "[...document.querySelectorAll('#sliders label:not([hidden])')].map((row) => row.firstChild.textContent)"


@pytest.fixture
def visit(tab, sampler):
    """Opens the page of a model whose dimensions carry so many nats."""
    servers = []

    def visiting(latent_kl, **metadata):
        doctored = copy.copy(sampler)
        doctored.metadata = dataclasses.replace(sampler.metadata, latent_kl=latent_kl, **metadata)
        servers.append(serve_model(doctored))
        return Explorer(tab, servers[-1].__enter__()).wait()

    yield visiting
    for server in servers:
        server.__exit__(None, None, None)


def test_sliders_stand_in_the_order_of_their_kl(visit):
    page = visit((0.5, 0.25, 2.0))
    assert page.tab.run(SHOWN) == ["z2", "z0", "z1"]
    rows = page.tab.run("[...document.querySelectorAll('#sliders .kl')].map((kl) => kl.textContent)")
    assert rows == ["2.00", "0.50", "0.25"]


def test_a_slider_moves_the_dimension_that_it_names(visit):
    page = visit((0.5, 0.25, 2.0))
    page.enter("#sliders label:nth-child(1) input", -1.5)
    page.settle()
    assert page.code()[2] == np.float32(-1.5)


def test_inactive_dimensions_are_folded_away_until_all_are_asked_for(visit):
    page = visit((0.5, 0.009, 2.0))
    assert page.tab.run(SHOWN) == ["z2", "z0"]
    assert page.text("#all") == "All 3"
    page.click("#all")
    assert page.tab.run(SHOWN) == ["z2", "z0", "z1"]
    assert page.tab.run("document.getElementById('inactive').checkVisibility()")
    page.click("#all")
    assert page.tab.run(SHOWN) == ["z2", "z0"]


def test_files_without_a_kl_have_their_sliders_in_the_order_of_the_model(visit):
    page = visit(None)
    assert page.tab.run(SHOWN) == ["z0", "z1", "z2"]
    assert not page.tab.run("document.getElementById('columns').checkVisibility()")


def test_a_code_far_from_the_prior_is_in_reach_of_the_sliders(visit):
    page = visit((0.5, 0.25, 2.0))
    page.open_code(np.array([-7.5, 0, 0], "<f4"))
    assert float(page.value(page.slider(0))) == -7.5


def test_a_value_of_two_digits_has_room_in_its_column_and_a_hair_below_zero_is_zero(visit):
    page = visit((0.5, 0.25, 2.0))
    page.open_code(np.array([-88.88, -0.001, -0.006], "<f4"))
    assert [page.text(f"{page.slider(place)} + output") for place in range(3)] == ["−88.88", "0.00", "−0.01"]
    for width in (360, 1280):
        page.tab.resize(width, 900)
        room = "[...document.querySelectorAll('#sliders output')].map((told) => told.clientWidth - told.scrollWidth)"
        assert page.tab.run(room) == [0, 0, 0]


def test_a_slider_reaches_four_deviations_of_its_dimension_and_all_go_as_many_further_to_a_far_code(visit):
    def ends(*places):
        return [pytest.approx(place) for place in places]

    page = visit((0.5, 0.25, 2.0), latent_mean=(0.0, -10.0, 1.0), latent_deviation=(1.0, 5.0, 0.1))
    page.open_code(np.array([0, -10, 1], "<f4"))
    reach = "[...document.querySelectorAll('#sliders input')].map((input) => [+input.min, +input.max, +input.step])"
    assert page.tab.run(reach) == [ends(0.6, 1.4, 0.005), ends(-4, 4, 0.05), ends(-30, 10, 0.25)]  # z2, z0 and z1
    page.open_code(np.array([0, 25, 1], "<f4"))
    assert page.tab.run(reach) == [ends(0.3, 1.7, 0.005), ends(-7, 7, 0.05), ends(-45, 25, 0.25)]
    assert float(page.value(page.slider(1))) == 25
