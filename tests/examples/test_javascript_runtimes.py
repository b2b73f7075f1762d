"""The same graphs in onnxruntime-node, and in onnxruntime-web under Node and in Chromium."""

import itertools
import json
import subprocess

import numpy as np
import pytest
from noise_graph import noise_model
from samplers import (
    MIXTURES,
    SAMPLERS,
    assert_same_choice,
    assert_same_draws,
    draw,
    given_to,
    make_samplers,
    with_choice,
)

from pipeline.runtime.draws import rows
from pipeline.runtime.noise import INDEX_LIMIT, SEED_LIMIT, random_integers, standard_normal

LATENT_DIM = 5
EDGE_SEEDS = [0, 1, 2**31, 2**32, SEED_LIMIT - 1]
EDGE_INDICES = [0, 1, 2**31, 2**32, INDEX_LIMIT - 1]
PAIRS = np.array(list(itertools.product(EDGE_SEEDS, EDGE_INDICES)), np.int64)
RANDOM = np.random.default_rng(0).integers(0, [SEED_LIMIT - 1, INDEX_LIMIT], (500, 2))
SEED, INDEX = np.concatenate([PAIRS, RANDOM]).T
NOISE_ROWS = {"seed": SEED, "index": INDEX}
CHOICE_ROWS = {**NOISE_ROWS, "temperature": np.ones(len(SEED), np.float32)}

TEN = rows(10, 7, 0, 1.0)
TEN["temperature"][8:] = 0, 2
DRAWS = [{name: values[part] for name, values in TEN.items()} for part in np.s_[:, :4, 4:, ::-1]]
"""Ten images of seed 7 in one call, the same in two calls, and in another order."""


@pytest.fixture(scope="module")
def samplers(mlp, conv):
    return make_samplers(mlp, conv)


@pytest.fixture(scope="module", params=["onnxruntime-node", "onnxruntime-web", "Chromium"])
def answers(request, samplers, tmp_path_factory):
    """What each graph gives in a runtime, name -> outputs of each request; in one process, since that starts slowly."""
    asked = {
        "noise": (noise_model(LATENT_DIM).SerializeToString(), [NOISE_ROWS]),
        **{name: (samplers[name], [given_to(name, some) for some in DRAWS]) for name in SAMPLERS},
        **{f"{name}'s choice": (with_choice(samplers[name]), [CHOICE_ROWS]) for name in MIXTURES},
    }
    files = {name: content for name, (content, _) in asked.items()}
    requests = json.dumps({name: [tensors(feed) for feed in feeds] for name, (_, feeds) in asked.items()})
    if request.param == "Chromium":
        found = request.getfixturevalue("browse")("graph_page.html", {**files, "requests.json": requests.encode()})
        given = found["answers"]
    else:
        example = request.getfixturevalue("node_example" if request.param == "onnxruntime-node" else "web_example")
        given = run_under_node(example, request.param, files, requests, tmp_path_factory.mktemp("graphs"))
    return {name: [arrays(answer) for answer in some] for name, some in given.items()}


def run_under_node(example, package, files, requests, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    command = ["node", "run.mjs", package, str(folder)]
    done = subprocess.run(
        command, cwd=example, input=requests, capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def tensors(feed):
    """Arrays as graphs.mjs takes them."""
    return {
        name: {"type": str(array.dtype), "dims": list(array.shape), "data": [str(value) for value in array.ravel()]}
        for name, array in feed.items()
    }


def arrays(answer):
    """The outputs of graphs.mjs as arrays."""
    return {
        name: np.array([np.dtype(output["type"]).type(value) for value in output["data"]]).reshape(output["dims"])
        for name, output in answer.items()
    }


def test_words_are_equal_bit_for_bit(answers):
    (noise,) = answers["noise"]
    assert noise["bits"].dtype == np.uint64
    np.testing.assert_array_equal(noise["bits"], random_integers(SEED, INDEX, 2 * ((LATENT_DIM + 1) // 2)))
    np.testing.assert_allclose(noise["eps"], standard_normal(SEED, INDEX, LATENT_DIM), rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_gives_the_images_of_python(answers, samplers, name):
    whole, first, second, backwards = answers[name]
    expected = draw(samplers[name], given_to(name, TEN))
    assert_same_draws(whole, expected)
    assert_same_draws({key: np.concatenate([first[key], second[key]]) for key in whole}, expected)
    assert_same_draws({key: values[::-1] for key, values in backwards.items()}, expected)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_chooses_the_same_component_by_the_same_word(answers, samplers, name):
    (found,) = answers[f"{name}'s choice"]
    assert_same_choice(found, samplers[name], SEED, INDEX)
