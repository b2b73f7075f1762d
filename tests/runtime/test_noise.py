"""Statistical tests of the generator, on fixed seeds: each would fail by chance once in a million keys.

`SIGNIFICANCE` is the probability of one test function's failing on a perfect generator; where a function looks at many
statistics, each gets its share (Bonferroni).
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from pipeline.errors import UserError
from pipeline.runtime.noise import (
    INDEX_LIMIT,
    PAIRS_PER_INDEX,
    SEED_LIMIT,
    check_first,
    check_seed,
    counters,
    random_integers,
    seed_key,
    standard_normal,
)

SIGNIFICANCE = 1e-6
ROWS, DRAWS = 2**16, 16
COUNT = np.arange(ROWS)
FIXED = np.zeros(ROWS, np.int64)
STREAMS = {
    "indices of a seed": (FIXED, COUNT),
    "indices far apart": (FIXED + 1, COUNT << 32),
    "consecutive seeds": (COUNT, FIXED),
    "seeds that differ in high bits": (COUNT << 47, FIXED),
    "seed and index in step": (COUNT, COUNT),
}
GOLDEN = [
    ["350ea9f2466f3c7e", "c5db6df0319245d4"],
    ["11e5f44db299411f", "856b8f46ce81d919"],
    ["9cee3f37f5488c70", "464f18d71820de01"],
]


@pytest.fixture(scope="module", params=STREAMS)
def draws(request):
    """The random halves of the words, uint32 [ROWS, DRAWS]."""
    return upper(random_integers(*STREAMS[request.param], DRAWS))


@pytest.fixture(scope="module", params=STREAMS)
def normals(request):
    return standard_normal(*STREAMS[request.param], DRAWS).astype(np.float64)


def upper(words):
    return (words >> 32).astype(np.uint32)


def distinct(values):
    ordered = np.sort(values, axis=None)
    return 1 + np.count_nonzero(ordered[1:] != ordered[:-1])


def assert_standard_normal(statistics):
    statistics = np.abs(np.asarray(statistics)).ravel()
    assert statistics.max() < stats.norm.isf(SIGNIFICANCE / 2 / statistics.size)


def assert_chi_square(counts):
    """Rows of counts over equally probable bins."""
    counts = np.atleast_2d(counts)
    p = stats.chisquare(counts, axis=1).pvalue
    # An even spread that is too good to be true fails as well.
    assert SIGNIFICANCE / 2 / p.size < p.min()
    assert p.max() < 1 - SIGNIFICANCE / 2 / p.size


def assert_bits_balanced(words):
    """Each of 32 bits is 1 half of the time; its count is binomial."""
    words = words.ravel()
    ones = np.array([np.count_nonzero(words & np.uint32(1 << bit)) for bit in range(32)])
    assert_standard_normal((ones - words.size / 2) / np.sqrt(words.size / 4))


def correlation(a, b):
    """Pearson's correlation times sqrt(n), standard normal for independent a and b."""
    return np.corrcoef(a.ravel(), b.ravel())[0, 1] * np.sqrt(a.size)


# The integers


def squares(counter, key):
    """The paper's squares32 and squares64, on Python's integers."""
    mask = 2**64 - 1
    swap = lambda x: (x >> 32) | (x << 32) & mask  # noqa: E731
    x = y = counter * key & mask
    z = y + key & mask
    x = swap(x * x + y & mask)
    x = swap(x * x + z & mask)
    x = swap(x * x + y & mask)
    fourth = x * x + z & mask
    x = swap(fourth)
    return fourth >> 32, fourth ^ ((x * x + y & mask) >> 32)


def test_words_are_those_of_the_paper():
    pairs = 5
    for seed, index in itertools.product([0, 1, 2**31, 2**32, SEED_LIMIT - 1], [0, 1, 2**31, INDEX_LIMIT - 1]):
        words = random_integers(np.array([seed]), np.array([index]), 2 * pairs)[0]
        for pair in range(pairs):
            key = int(seed_key(np.array([seed]))[0])
            fourth, fifth = int(words[pair]), int(words[pairs + pair])
            assert (fourth >> 32, fourth ^ fifth >> 32) == squares(
                int(counters(np.array([index]), pairs)[0, pair]), key
            )


def test_words_never_change_from_version_to_version():
    words = random_integers(np.array([0, 1, SEED_LIMIT - 1]), np.array([0, 1, INDEX_LIMIT - 1]), 2)
    assert [[f"{word:016x}" for word in row] for row in words.tolist()] == GOLDEN


def test_no_two_pairs_of_a_seed_share_a_counter():
    index = np.array([0, 1, 2, 2**32, INDEX_LIMIT - 2, INDEX_LIMIT - 1])
    assert distinct(counters(index, PAIRS_PER_INDEX)) == len(index) * PAIRS_PER_INDEX


def test_no_two_words_of_many_rows_are_equal():
    # Row 0 is left out: the streams share it. By chance two of 5 million words are equal once in a million keys.
    words = np.concatenate([random_integers(seed[1:], index[1:], DRAWS) for seed, index in STREAMS.values()])
    assert distinct(words) == words.size


def test_upper_halves_repeat_as_often_as_chance_has_it(draws):
    repeats = draws.size - distinct(draws)
    expected = draws.size - 2**32 * -np.expm1(draws.size * np.log1p(-(2.0**-32)))
    assert stats.poisson.cdf(repeats, expected) > SIGNIFICANCE / 2
    assert stats.poisson.sf(repeats, expected) > SIGNIFICANCE / 2


def test_each_bit_is_balanced(draws):
    assert_bits_balanced(draws)


def test_each_bit_is_independent_of_the_next_dimension(draws):
    assert_bits_balanced(draws[:, 1:] ^ draws[:, :-1])


@pytest.mark.parametrize("lag", [1, 2, 256])
def test_each_bit_is_independent_of_a_row_before(draws, lag):
    assert_bits_balanced(draws[lag:] ^ draws[:-lag])


def test_both_words_of_a_counter_are_independent(draws):
    fourth, fifth = np.split(draws, 2, axis=1)
    assert_bits_balanced(fourth ^ fifth)
    cells = (fourth >> 26).ravel() * 64 + (fifth >> 26).ravel()
    assert_chi_square(np.bincount(cells, minlength=64 * 64))


def test_bytes_are_uniform(draws):
    bytes_ = draws.ravel().view(np.uint8).reshape(-1, 4)
    assert_chi_square([np.bincount(column, minlength=256) for column in bytes_.T])


def test_serial_correlation_vanishes(draws):
    lags = [correlation(draws[lag:], draws[:-lag]) for lag in (1, 2, 3, 16)]
    lags += [correlation(draws[:, lag:], draws[:, :-lag]) for lag in (1, 2, 3)]
    assert_standard_normal(lags)


@pytest.mark.parametrize("bit", range(63))
def test_one_bit_of_the_seed_changes_half_of_all_bits(bit):
    rng = np.random.default_rng(bit)
    seed, index = rng.integers(0, SEED_LIMIT - 1, 2000), rng.integers(0, 1000, 2000)
    assert_bits_balanced(upper(random_integers(seed, index, 4)) ^ upper(random_integers(seed ^ (1 << bit), index, 4)))


@pytest.mark.parametrize("bit", range(48))
def test_one_bit_of_the_index_changes_half_of_all_bits(bit):
    rng = np.random.default_rng(bit)
    seed, index = rng.integers(0, 1000, 2000), rng.integers(0, INDEX_LIMIT, 2000)
    assert_bits_balanced(upper(random_integers(seed, index, 4)) ^ upper(random_integers(seed, index ^ (1 << bit), 4)))


def test_keys_are_odd_and_distinct():
    seeds = np.concatenate([np.arange(2**17), np.arange(2**17) << 46, SEED_LIMIT - 1 - np.arange(2**17)])
    keys = seed_key(seeds)
    assert (keys % 2 == 1).all()
    assert distinct(keys) == distinct(seeds)


# The normals


def test_normals_follow_the_normal_distribution(normals):
    assert stats.kstest(normals.ravel(), "norm").pvalue > SIGNIFICANCE


def test_moments_are_those_of_the_normal_distribution(normals):
    z, n = normals.ravel(), normals.size
    # Variances of the sample means of z, z^2 - 1, z^3, z^4 - 3.
    errors = [(np.mean(z**power) - mean) / np.sqrt(variance / n) for power, mean, variance in MOMENTS]
    assert_standard_normal(errors)


MOMENTS = [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]


def test_tails_are_neither_cut_nor_heavy(normals):
    for threshold in (3, 4, 4.5):
        expected = normals.size * 2 * stats.norm.sf(threshold)
        found = np.count_nonzero(np.abs(normals) > threshold)
        assert stats.poisson.cdf(found, expected) > SIGNIFICANCE / 6
        assert stats.poisson.sf(found, expected) > SIGNIFICANCE / 6


def test_extreme_words_give_finite_normals(monkeypatch):
    extremes = np.array([[0, 1, 2**63, 2**64 - 1, 2**63 - 1]], np.uint64)
    pairs = np.concatenate([extremes, extremes[:, ::-1]], axis=1)
    monkeypatch.setattr("pipeline.runtime.noise.random_integers", lambda *_: pairs)
    z = standard_normal(np.zeros(1, np.int64), np.zeros(1, np.int64), 10)
    assert np.isfinite(z).all()
    assert 9 < np.abs(z).max() < 9.5


def test_members_of_a_pair_are_independent(normals):
    a, b = np.split(normals, 2, axis=1)
    assert_standard_normal(
        [correlation(a, b), correlation(a**2, b**2), correlation(np.abs(a), b), correlation(a, b**2)]
    )
    bins = (32 * stats.norm.cdf(np.stack([a.ravel(), b.ravel()]))).astype(int)
    assert_chi_square(np.bincount(bins[0] * 32 + bins[1], minlength=32 * 32))


def test_dimensions_are_uncorrelated(normals):
    upper_triangle = np.triu_indices(DRAWS, k=1)
    assert_standard_normal(np.corrcoef(normals.T)[upper_triangle] * np.sqrt(ROWS))


def test_consecutive_rows_are_uncorrelated(normals):
    assert_standard_normal([correlation(normals[lag:], normals[:-lag]) for lag in (1, 2, 3)])
    assert_standard_normal([correlation(normals[lag:] ** 2, normals[:-lag] ** 2) for lag in (1, 2, 3)])


@pytest.mark.parametrize("latent_dim", [1, 2, 7, 20])
def test_a_row_depends_on_its_seed_and_index_alone(latent_dim):
    rng = np.random.default_rng(0)
    seed, index = rng.integers(0, SEED_LIMIT - 1, 50), rng.integers(0, INDEX_LIMIT, 50)
    together = standard_normal(seed, index, latent_dim)
    assert together.dtype == np.float32
    assert together.shape == (50, latent_dim)
    alone = np.concatenate([standard_normal(seed[[i]], index[[i]], latent_dim) for i in range(50)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=3e-6)  # vectorised log, cos and sin differ in the last bit


# What a user may ask for


@pytest.mark.parametrize("seed", [0, 1, SEED_LIMIT - 1, np.int64(5)])
def test_every_int64_seed_that_is_not_negative_is_taken(seed):
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize("seed", [-1, SEED_LIMIT, 1.0, "1", None, True])
def test_other_seeds_are_refused(seed):
    with pytest.raises(UserError, match=f"^seed is {seed!r}; expected a whole number from 0 to {SEED_LIMIT - 1}$"):
        check_seed(seed)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, INDEX_LIMIT), (INDEX_LIMIT - 1, 1), (40, 60)])
def test_images_with_counters_are_taken(first, count):
    assert check_first(first, count) == first


@pytest.mark.parametrize(
    ("first", "count", "name"),
    [(-1, 1, "first"), (INDEX_LIMIT, 1, "first"), (INDEX_LIMIT - 1, 2, "first"), (0, 0, "count"), (0.5, 1, "first")],
)
def test_images_without_counters_are_refused(first, count, name):
    with pytest.raises(UserError, match=f"^{name} is .*; expected a whole number from"):
        check_first(first, count)
